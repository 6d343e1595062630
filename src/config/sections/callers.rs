//! The sections of who may call: callers, issuers, their rules, tenants.

use super::*;

sections! {
    /// `[auth]`
    AuthConfig {
        /// Whether the data plane asks for a credential on loopback and Unix sockets too.
        required: bool = false, flag;
    }

    /// One of `[[callers]]`: who may call, and what.
    CallerConfig {
        /// Names it in the log, in the audit log and for commands; no two are alike.
        name: String = String::new(), text(parse_name);
        keys: Vec<CallerKeyConfig> = Vec::new(), tables;
        unix_uids: Vec<u32> = Vec::new(), numbers;
        unix_gids: Vec<u32> = Vec::new(), numbers;
        mtls_san: Vec<String> = Vec::new(), list(any_text);
        tenant: Option<Tenant> = None, opt(text(parse_tenant));
        /// The longest that a session of it may be made for.
        session_ttl_max as "session_ttl_max_secs": Duration = secs(86_400), session_ttl;
        * rules: RulesConfig;
    }

    /// One of a caller's keys.
    CallerKeyConfig {
        /// The eight characters behind its prefix.
        id: String = String::new(), text(parse_key_id);
        /// Of the whole key, as hex in lower case.
        sha256: String = String::new(), text(parse_sha256);
        /// When it was made, for those who look at its age.
        created: Option<jiff::Timestamp> = None, opt(text(parse_expiry));
        /// From then on it is not accepted.
        expires: Option<jiff::Timestamp> = None, opt(text(parse_expiry));
    }

    /// What a caller, or a token's bearer, may do.
    RulesConfig {
        /// Globs over ids; none: all that it can see.
        accounts: Option<Vec<String>> = None, opt(list(parse_account_glob));
        read_only: bool = false, flag;
        methods: Option<Vec<String>> = None, opt(list(parse_method));
        paths: Option<Vec<String>> = None, opt(list(parse_path_glob));
        /// Values that `Amazon-Advertising-API-Scope` may have.
        profiles: Option<Vec<String>> = None, opt(list(parse_profile));
        requests_per_minute: Option<u32> = None, opt(whole(1, 10_000_000));
        /// May use the admin API.
        operator: bool = false, flag;
        /// What requests to the MCP server are pinned to; none: what the caller says.
        mcp: Option<McpPins> = None, opt(table);
        /// Globs over names of MCP tools; none: all.
        tools: Option<Vec<String>> = None, opt(list(parse_tool));
        /// MCP tools that it may not use, whatever `tools` says.
        deny: Vec<String> = Vec::new(), list(parse_tool);
    }

    /// `mcp` of a caller or issuer: at least one of them.
    McpPins {
        profile: Option<String> = None, opt(text(parse_pin));
        account: Option<String> = None, opt(text(parse_pin));
        manager: Option<String> = None, opt(text(parse_pin));
    }

    /// One of `[[issuers]]`: who signs the JWTs of callers.
    IssuerConfig {
        name: String = String::new(), text(parse_name);
        /// The `iss` of its tokens, letter for letter.
        issuer: String = String::new(), text(parse_url_text);
        /// None: from its discovery document, else `/.well-known/jwks.json`.
        jwks_url: Option<Uri> = None, opt(text(parse_url));
        jwks: Option<JwksConfig> = None, opt(table);
        algorithms: Vec<JwtAlgorithm> = vec![JwtAlgorithm::Rs256], list(parse_algorithm);
        audience: Vec<String> = Vec::new(), list(any_text);
        authorized_parties: Vec<String> = Vec::new(), list(any_text);
        /// Whether a token must name its authorized party where those are configured.
        require_azp: bool = true, flag;
        /// Whether a token must name a session; none: where authorized parties are configured.
        require_sid: Option<bool> = None, opt(flag);
        /// Paths of claims; the first that is there names the tenant. None of them: no tenant.
        tenant_claim: Vec<String> = ["org_id", "o.id", "sub"].map(str::to_owned).into(),
            list(any_text);
        /// Globs over tenants, one of which a token's must match; none: any.
        tenants: Option<Vec<String>> = None, opt(list(parse_tenant_glob));
        /// The longest that a user may make a session for; none: users make no sessions.
        session_ttl_max as "session_ttl_max_secs": Option<Duration> = None, opt(session_ttl);
        leeway as "leeway_secs": Duration = secs(5), seconds;
        * rules: RulesConfig;
    }

    /// `issuers.jwks`
    JwksConfig {
        file: PathBuf = PathBuf::new(), any;
    }

    /// `[tenants]`
    TenantsConfig {
        /// Accounts that one tenant may connect.
        accounts_max: usize = 100, count;
    }
}
