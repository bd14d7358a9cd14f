"""How long the certificate of the gateway is valid."""

import ssl
import time
from pathlib import Path

_SOON_SEC = 14 * 86400
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def fault(certificate: Path, key: Path) -> str | None:
    """A sentence for a certificate that is not valid now, or expires soon; nginx says what else is wrong."""
    try:
        end_sec = ssl.cert_time_to_seconds(str(_peer(certificate, key).getpeercert()["notAfter"]))  # type: ignore[index]
    except ssl.SSLCertVerificationError as error:
        reasons = {_EXPIRED: "has expired", _NOT_YET: "is not valid yet"}
        reason = reasons.get(error.verify_code)
        return f"{certificate} {reason}; renew it, then run `recipectl apply`" if reason else None
    except (ssl.SSLError, OSError):
        return None
    days = (end_sec - time.time()) / 86400
    if end_sec - time.time() > _SOON_SEC:
        return None
    return f"{certificate} expires in {days:.0f} days; renew it, then run `recipectl apply`"


def _peer(certificate: Path, key: Path) -> ssl.SSLObject:
    """A client that trusts this certificate alone, after a handshake in memory with a server that has it."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(certificate, key, password="")
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.load_verify_locations(certificate)
    client_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context.wrap_bio(to_client, to_server)
    for side in (client, server, client):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client
