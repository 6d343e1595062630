//! Behaviour tests: one file per behaviour.

#[cfg(feature = "sandbox")]
mod account_states;
#[cfg(feature = "sandbox")]
mod account_verify;
#[cfg(feature = "sandbox")]
mod accounts_change;
#[cfg(feature = "sandbox")]
mod admin;
#[cfg(feature = "sandbox")]
mod admin_address;
#[cfg(feature = "sandbox")]
mod admin_bodies;
#[cfg(feature = "sandbox")]
mod admin_matrix;
#[cfg(feature = "sandbox")]
mod admin_pages;
#[cfg(feature = "sandbox")]
mod admin_schema;
#[cfg(feature = "sandbox")]
mod admin_sessions;
#[cfg(feature = "sandbox")]
mod audit;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod audit_expiry;
#[cfg(feature = "sandbox")]
mod audit_request_ids;
#[cfg(feature = "sandbox")]
mod audit_server;
#[cfg(feature = "sandbox")]
mod bad_input;
#[cfg(feature = "sandbox")]
mod browser_attacks;
#[cfg(feature = "sandbox")]
mod caller_certificates;
#[cfg(feature = "sandbox")]
mod caller_jwt;
#[cfg(feature = "sandbox")]
mod caller_keys;
#[cfg(feature = "sandbox")]
mod caller_mcp;
#[cfg(feature = "sandbox")]
mod caller_revocation;
#[cfg(feature = "sandbox")]
mod caller_rules;
#[cfg(feature = "sandbox")]
mod caller_sdk;
#[cfg(feature = "sandbox")]
mod caller_sessions;
#[cfg(feature = "sandbox")]
mod caller_unix;
#[cfg(feature = "sandbox")]
mod callers;
mod cli;
#[cfg(feature = "sandbox")]
mod clock_and_sleep;
#[cfg(feature = "sandbox")]
mod closed_streams;
mod cmd_caller;
#[cfg(feature = "sandbox")]
mod cmd_curl;
#[cfg(feature = "sandbox")]
mod cmd_doctor;
#[cfg(feature = "sandbox")]
mod cmd_env;
#[cfg(feature = "sandbox")]
mod cmd_exec;
mod cmd_policy;
#[cfg(feature = "sandbox")]
mod cmd_policy_session;
#[cfg(feature = "sandbox")]
mod cmd_status;
#[cfg(feature = "sandbox")]
mod cmd_token;
#[cfg(feature = "sandbox")]
mod commands_page;
mod config;
#[cfg(feature = "sandbox")]
mod connection_in_request;
#[cfg(feature = "sandbox")]
mod control_socket;
#[cfg(feature = "sandbox")]
mod cpu_of_attacks;
#[cfg(feature = "sandbox")]
mod cpu_of_heads;
#[cfg(feature = "sandbox")]
mod crash_points;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_browser;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_browsers;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_canaries;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_details;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_fit;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_live;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_oidc;
#[cfg(all(feature = "dashboard", feature = "sandbox", feature = "postgres"))]
mod dashboard_outage;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_pages;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_pictures;
#[cfg(all(feature = "dashboard", feature = "sandbox", feature = "postgres"))]
mod dashboard_postgres;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_sign_in;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_tenants;
#[cfg(all(feature = "dashboard", feature = "sandbox"))]
mod dashboard_ways;
mod deploy;
#[cfg(feature = "sandbox")]
mod docs;
#[cfg(feature = "sandbox")]
mod drain;
#[cfg(feature = "sandbox")]
mod early_responses;
#[cfg(feature = "sandbox")]
mod egress_proxy;
#[cfg(feature = "sandbox")]
mod fallbacks;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod fleet;
#[cfg(feature = "sandbox")]
mod grant_death;
#[cfg(feature = "sandbox")]
mod header_hygiene;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod held_elsewhere;
#[cfg(feature = "sandbox")]
mod hooks;
#[cfg(feature = "sandbox")]
mod hooks_outbox;
#[cfg(feature = "sandbox")]
mod hostile_directory;
#[cfg(feature = "sandbox")]
mod http2;
#[cfg(feature = "sandbox")]
mod http2_attacks;
#[cfg(feature = "sandbox")]
mod http2_upstream;
#[cfg(feature = "sandbox")]
mod import;
#[cfg(feature = "sandbox")]
mod import_served;
#[cfg(feature = "sandbox")]
mod import_sources;
#[cfg(feature = "sandbox")]
mod import_strange;
mod key_material;
#[cfg(feature = "sandbox")]
mod key_rotation;
#[cfg(feature = "keyring")]
mod keyring;
mod kubernetes;
mod layers;
#[cfg(feature = "sandbox")]
mod library;
#[cfg(feature = "sandbox")]
mod limits;
#[cfg(feature = "sandbox")]
mod listeners;
#[cfg(feature = "sandbox")]
mod lwa_shim;
mod manual;
#[cfg(feature = "sandbox")]
mod memory;
#[cfg(feature = "sandbox")]
mod monitoring;
#[cfg(feature = "sandbox")]
mod mutations;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod newer_records;
#[cfg(feature = "sandbox")]
mod oauth_accounts;
#[cfg(feature = "sandbox")]
mod oauth_answers;
#[cfg(feature = "sandbox")]
mod oauth_browser;
#[cfg(feature = "sandbox")]
mod oauth_command;
#[cfg(feature = "sandbox")]
mod oauth_meanwhile;
#[cfg(feature = "sandbox")]
mod oauth_state;
#[cfg(feature = "sandbox")]
mod operate_from_elsewhere;
#[cfg(feature = "sandbox")]
mod outage;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_changes;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_crash;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_listen;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_outage;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_restored;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_schema;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_statements;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod postgres_tls;
#[cfg(feature = "sandbox")]
mod probes;
#[cfg(feature = "sandbox")]
mod public_listener;
#[cfg(feature = "sandbox")]
mod real_clients;
#[cfg(feature = "sandbox")]
mod reconnect_page;
#[cfg(feature = "sandbox")]
mod redirects;
mod release;
#[cfg(feature = "sandbox")]
mod reload;
#[cfg(feature = "sandbox")]
mod replay_bodies;
#[cfg(feature = "sandbox")]
mod replay_on_401;
#[cfg(feature = "sandbox")]
mod requests;
#[cfg(feature = "sandbox")]
mod response_hygiene;
mod run_script;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_command;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod scale;
#[cfg(feature = "sandbox")]
mod schemathesis;
#[cfg(feature = "sandbox")]
mod sdk;
#[cfg(feature = "sandbox")]
mod secrets;
#[cfg(feature = "sandbox")]
mod selection;
#[cfg(feature = "sandbox")]
mod sent_again;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod shared_postgres;
#[cfg(feature = "sandbox")]
mod signals;
#[cfg(feature = "sandbox")]
mod smuggling;
#[cfg(feature = "sandbox")]
mod static_binary;
#[cfg(feature = "sandbox")]
mod stopping;
#[cfg(feature = "sandbox")]
mod store_behaviour;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod store_copy;
#[cfg(feature = "sandbox")]
mod store_crash;
#[cfg(feature = "sandbox")]
mod store_faults;
#[cfg(feature = "sandbox")]
mod store_power_cut;
#[cfg(feature = "sandbox")]
mod stranger;
#[cfg(feature = "sandbox")]
mod streaming_bodies;
mod support;
#[cfg(feature = "sandbox")]
mod systemd;
#[cfg(feature = "sandbox")]
mod telemetry_export;
#[cfg(feature = "sandbox")]
mod telemetry_traces;
#[cfg(feature = "sandbox")]
mod tenant_matrix;
#[cfg(feature = "sandbox")]
mod tenant_shares;
#[cfg(feature = "sandbox")]
mod tenants;
#[cfg(feature = "sandbox")]
mod throttling;
#[cfg(all(feature = "sandbox", feature = "postgres"))]
mod throttling_shared;
#[cfg(feature = "sandbox")]
mod token_refresh;
#[cfg(feature = "sandbox")]
mod two_processes;
#[cfg(feature = "sandbox")]
mod user_sessions;
mod version;
#[cfg(feature = "sandbox")]
mod wall_clock;
