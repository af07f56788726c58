"""Certificates for the laboratory's servers, by `openssl`."""

import os
import shutil

import lab

NAME = "front.test"


def make(scratch):
    """Makes an issuer and a certificate of it for `NAME`; the paths of the issuer, the certificate and its key."""
    if not shutil.which("openssl"):
        raise lab.LabError("`openssl` is missing: install the Debian package openssl")
    issuer, chain, key = (scratch.file(name) for name in ("issuer.pem", "chain.pem", "key.pem"))
    if not os.path.exists(chain):
        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        extensions, request, issuer_key = (scratch.file(name) for name in ("leaf.cnf", "leaf.csr", "issuer.key"))
        with open(extensions, "w") as f:
            f.write(f"subjectAltName=DNS:{NAME}\nbasicConstraints=CA:FALSE\n")
        lab.run("openssl", "req", "-x509", *new, "-days", 30, "-subj", "/CN=lab issuer", "-keyout", issuer_key, "-out", issuer)
        lab.run("openssl", "req", *new, "-subj", f"/CN={NAME}", "-keyout", key, "-out", request)
        lab.run("openssl", "x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer_key, "-CAcreateserial", "-days", 30,
                "-extfile", extensions, "-out", chain)
    return issuer, chain, key


def server(scratch, stream):
    """`stream` with TLS, for a server."""
    _, chain, key = make(scratch)
    settings = {"certificates": [{"certificateFile": chain, "keyFile": key}]}
    return {**stream, "security": "tls", "tlsSettings": settings}


def client(scratch, stream):
    """`stream` with TLS, for a client that trusts the issuer alone."""
    issuer, _, _ = make(scratch)
    settings = {"serverName": NAME, "disableSystemRoot": True, "certificates": [{"usage": "verify", "certificateFile": issuer}]}
    return {**stream, "security": "tls", "tlsSettings": settings}
