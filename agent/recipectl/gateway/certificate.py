"""How long the certificate of the gateway is valid."""

import ssl
import time
from contextlib import suppress
from pathlib import Path

_SOON_SEC = 14 * 86400
_MOST_FLIGHTS = 4  # messages of a handshake: two of TLS 1.3, three of TLS 1.2
_EXPIRED, _NOT_YET = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID of OpenSSL


def fault(certificate: Path, key: Path) -> str | None:
    """A sentence for a certificate that is not valid now, or expires soon; nginx says what else is wrong."""
    try:
        end_sec = ssl.cert_time_to_seconds(str(_peer(certificate, key).getpeercert()["notAfter"]))  # type: ignore[index]
    except ssl.SSLCertVerificationError as error:
        reasons = {_EXPIRED: "has expired", _NOT_YET: "is not valid yet"}
        reason = reasons.get(error.verify_code)
        return f"{certificate} {reason}; renew it, then run `recipectl apply`" if reason else None
    except (OSError, ValueError):  # SSLError is an OSError
        return None
    if end_sec - time.time() > _SOON_SEC:
        return None
    day = time.strftime("%Y-%m-%d", time.gmtime(end_sec))
    return f"{certificate} expires on {day}; renew it, then run `recipectl apply`"


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
    for _ in range(_MOST_FLIGHTS):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return client
