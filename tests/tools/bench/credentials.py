"""Makes the certificate of the upstream, an issuer's key with a JWT, and a caller's key."""

import base64
import json
import os
import subprocess
import time

from programs import CLIENT_ID

CERTIFICATE = """[req]
distinguished_name = name
x509_extensions = extensions
[name]
[extensions]
subjectAltName = DNS:localhost
basicConstraints = critical,CA:FALSE
"""


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*arguments, data=None):
    return subprocess.run(["openssl", *arguments], input=data, check=True, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL).stdout


def make_certificate(directory):
    (directory / "openssl.cnf").write_text(CERTIFICATE)
    openssl("req", "-x509", "-config", directory / "openssl.cnf", "-newkey", "ec", "-nodes", "-pkeyopt",
            "ec_paramgen_curve:P-256", "-days", "2", "-subj", "/CN=localhost",
            "-keyout", directory / "key.pem", "-out", directory / "cert.pem")


def make_jwt(directory):
    """A key of an issuer, and a token that it has signed."""
    key = directory / "issuer.pem"
    openssl("genrsa", "-out", key, "2048")
    modulus = openssl("rsa", "-in", key, "-noout", "-modulus").decode().strip().partition("=")[2]
    jwk = {"kty": "RSA", "kid": "k1", "alg": "RS256", "e": "AQAB", "n": base64url(bytes.fromhex(modulus))}
    (directory / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    now = int(time.time())
    claims = {"iss": "https://bench.example.com", "aud": "adsproxy", "sub": "bench", "iat": now, "exp": now + 36000}
    header = {"alg": "RS256", "typ": "JWT", "kid": "k1"}
    signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
    signature = openssl("dgst", "-sha256", "-sign", key, data=signed.encode())
    return f"{signed}.{base64url(signature)}"


def make_key(program, directory):
    """A caller's key and its lines of configuration, by the command that a user has for it."""
    file = directory / "empty.toml"
    file.write_text(f'[lwa]\nclient_id = "{CLIENT_ID}"\nclient_secret = {{ env = "BENCH_SECRET" }}\n'
                    '[store]\nkind = "memory"\n')
    command = [program, "caller", "add", "bench", "--json", "--config", file]
    made = subprocess.run(command, check=True, capture_output=True, env=os.environ | {"BENCH_SECRET": "x"})
    return json.loads(made.stdout)
