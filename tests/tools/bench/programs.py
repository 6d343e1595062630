"""The configuration of every program that is measured, as text with places for ports and paths."""

import shutil
import sys
from pathlib import Path

TOKEN = "Atza|" + "T" * 295
CLIENT_ID = "amzn1.application-oa2-client.0123456789abcdef"

NGINX = """{user} worker_processes {workers}; worker_rlimit_nofile 20000; daemon off; pid {directory}/{name}.pid;
error_log stderr crit;
events {{ worker_connections 8000; }}
http {{
  access_log {log}; keepalive_requests 1000000000; keepalive_timeout 600s;
  client_max_body_size 64m; client_body_buffer_size {body_buffer}; map_hash_bucket_size 1024;
  client_body_temp_path {directory}/{name}-1; proxy_temp_path {directory}/{name}-2;
  fastcgi_temp_path {directory}/{name}-3; uwsgi_temp_path {directory}/{name}-4;
  scgi_temp_path {directory}/{name}-5;
  {http}
}}
"""

# A request without a token gets 401: a proxy that adds none shows as failed requests.
UPSTREAM = """map $http_authorization $known {{ default 0; "~^Bearer Atza" 1; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen 127.0.0.1:{tls_port} ssl backlog=4096;
    ssl_certificate {directory}/cert.pem; ssl_certificate_key {directory}/key.pem;
    ssl_protocols TLSv1.3; default_type application/json;
    if ($known = 0) {{ return 401; }}
    location /1k {{ return 200 "{small}"; }}
    location /16k {{ proxy_pass http://127.0.0.1:{sink_port}; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
  upstream sink {{ server 127.0.0.1:{sink_port}; keepalive 256; }}
  server {{ listen 127.0.0.1:{sink_port}; location / {{ return 200 "{small}"; }} }}
  server {{ listen 127.0.0.1:{lwa_port}; default_type application/json; location / {{ return 200 '{grant}'; }} }}
"""
PEER = """map $http_x_ads_account $token {{ default ""; acme "Bearer {token}"; }}
  map $http_x_ads_account $client {{ default ""; acme "{client}"; }}
  upstream amazon {{ server 127.0.0.1:{upstream}; keepalive 1100; keepalive_requests 1000000000; keepalive_timeout 600s; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass {scheme}://amazon; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_set_header Host localhost; proxy_set_header X-Ads-Account "";
      proxy_set_header Authorization $token; proxy_set_header Amazon-Advertising-API-ClientId $client;
      proxy_ssl_protocols TLSv1.3; proxy_ssl_server_name on; proxy_ssl_name localhost;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {directory}/cert.pem;
    }}
  }}
"""

HAPROXY = """global
  nbthread 1
  maxconn 9000
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 600s
  http-reuse always
frontend f
  bind 127.0.0.1:{port} backlog 4096
  default_backend b
backend b
  http-request set-header Authorization "Bearer {token}"
  http-request set-header Amazon-Advertising-API-ClientId "{client}"
  http-request del-header x-ads-account
  http-request set-header Host localhost
  server s 127.0.0.1:{upstream} pool-max-conn 2048 {tls}
"""
HAPROXY_TLS = "ssl verify required ca-file {directory}/cert.pem sni str(localhost)"

ENVOY = """static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              request_headers_to_add:
              - header: {{ key: amazon-advertising-api-clientid, value: "{client}" }}
              - header: {{ key: authorization, value: "Bearer {token}" }}
              request_headers_to_remove: ["x-ads-account"]
              routes:
              - match: {{ prefix: "/" }}
                route: {{ cluster: u, host_rewrite_literal: localhost }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{ "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: u
    type: STATIC
    circuit_breakers: {{ thresholds: [{{ max_connections: 20000, max_pending_requests: 20000, max_requests: 20000 }}] }}
    load_assignment:
      cluster_name: u
      endpoints:
      - lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {upstream} }} }} }} }}]
    {tls}
"""
ENVOY_TLS = """transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context: {{ validation_context: {{ trusted_ca: {{ filename: "{directory}/cert.pem" }} }} }}"""

# Only what a measurement needs; the log, with its line for each request, and the metrics are as by default.
ADSPROXY = """[listen]
proxy = ["127.0.0.1:{port}"]
admin = "{admin}"
[proxy]
workers = {workers}
[lwa]
client_id = "{client}"
client_secret = {{ env = "BENCH_SECRET" }}
token_url = "http://127.0.0.1:{lwa}/"
[upstream]
na = "{scheme}://{host}:{upstream}"
ca_file = "{directory}/cert.pem"
[replay]
memory_max_bytes = {replay_memory}
[store]
kind = "memory"
[accounts.acme]
region = "na"
refresh_token = {{ env = "BENCH_SECRET" }}
{callers}
[[issuers]]
name = "bench-issuer"
issuer = "https://bench.example.com"
jwks = {{ file = "{directory}/jwks.json" }}
algorithms = ["RS256"]
audience = ["adsproxy"]
tenant_claim = []
"""


def envoy():
    """Envoy on the path, or that of the Python package."""
    return shutil.which("envoy") or next(map(str, (Path(sys.prefix) / "lib").glob("**/*_bin/envoy")), None)


def peers():
    """The programs to compare that are installed, adsproxy first."""
    return ["adsproxy", "nginx", *filter(shutil.which, ["haproxy"]), *(["envoy"] if envoy() else [])]
