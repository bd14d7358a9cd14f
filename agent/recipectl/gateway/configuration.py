"""The files and the unit of the gateway. Pure: the same routes and settings give the same bytes."""

import json
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from recipectl.compiler import sandbox
from recipectl.compiler.model import GatewaySettings
from recipectl.compiler.secrets import Credential
from recipectl.compiler.unit_text import rendered, templates
from recipectl.gateway.routes import Routes
from recipectl.gateway_keys import ENGINE_PREFIX
from recipectl.machine.installation import Installation
from recipectl.request_queue import error_json
from recipectl.systemd import quoting
from recipectl.systemd.unitfile import DIGEST_FIELD, GATEWAY, GATEWAY_USER, Unit, sealed
from recipectl.text import digest_of

FOLDER = "/etc/recipectl/gateway"
RUN = "/run/models-gateway"
LOADED = f"{RUN}/loaded"  # the socket where nginx says which configuration it has
FILES = ("nginx.conf", "names.json", "ambiguous.json", "gateway.js")  # in FOLDER: all others are the site's
_HEADERS = {
    "Host": "$http_host", "Upgrade": "$gateway_upgrade", "Connection": "$gateway_connection",
    "X-Request-ID": "$request_id", "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Proto": "$scheme",
}  # fmt: skip
_KEY_HEADERS = {"Authorization": "$gateway_authorization", "X-Api-Key": '""'}
# Status -> code and message of what nginx, or the site's own lines, refuse.
_REFUSALS = {
    401: ("invalid_api_key", "the key is missing or wrong; send `Authorization: Bearer KEY`"),
    403: ("forbidden", "this server refuses the request"),
    405: ("not_allowed", "this server refuses the method or the path"),
    408: ("too_slow", "the request came too slowly"),
    410: ("gone", "there is nothing here any more"),
    413: ("too_large", "the body is larger than this server takes"),
    429: ("too_many_requests", "there are too many requests; ask again later"),
    500: ("gateway_fault", "the gateway could not handle the request; run `recipectl doctor` on its host"),
    503: ("unavailable", "this server takes no requests now"),
}
# (nginx's statuses, path, status, code, message) of requests that nginx cannot read. They have no path, which
# a named location needs.
_UNREAD_REFUSALS = (
    (
        "400 494 495 496 501 505",
        "/:400",
        400,
        "no_http",
        "the request is no valid HTTP, or a header of it is too long",
    ),
    ("414", "/:414", 414, "too_long", "the address of the request is too long"),
    ("497", "/:497", 400, "no_tls", "this server speaks TLS; use https://"),
)
_RUN_APPLY = "run `recipectl apply` without names, which ends it"
LEFT_OVER = f"{GATEWAY} is there, and the host file has no `gateway:`; {_RUN_APPLY}"
_CREDENTIALS = f"/run/credentials/{GATEWAY}"
_JOURNAL = "syslog:server=unix:/run/systemd/journal/dev-log,nohostname,tag=models_gateway requests"


class Nginx(NamedTuple):
    """The paths of the program, and of its module for JavaScript."""

    program: str
    module: str


class Paths(NamedTuple):
    """What differs between nginx as the unit runs it, and a test of its configuration."""

    folder: str = FOLDER
    run: str = RUN
    certificate: str = f"{_CREDENTIALS}/certificate"
    key: str = f"{_CREDENTIALS}/key"
    access_log: str = _JOURNAL


class SiteLines(NamedTuple):
    """What the site's own files have, all together; the headers that they set for the whole server."""

    content: bytes = b""
    headers: frozenset[str] = frozenset()  # in small letters


class Gateway(NamedTuple):
    """The gateway as it should be: its files by name, its unit, and the digests of both."""

    settings: GatewaySettings
    routes: Routes
    files: Mapping[str, str]
    digest: str  # of the files: what a reload changes
    site_lines: SiteLines
    unit: Unit
    unit_digest: str  # of what a process keeps from its start
    engine_credentials: tuple[Credential, ...]  # the keys of engines, which a reload changes


def render(
    settings: GatewaySettings,
    routes: Routes,
    nginx: Nginx,
    source: str,
    installation: Installation,
    site_lines: SiteLines = SiteLines(),  # noqa: B008  (it cannot change)
) -> Gateway:
    """The gateway of some routes."""
    files = data_files(routes)
    # The digest covers all that nginx reads at a reload, and not its program.
    content = json.dumps(
        [files, configuration(settings, nginx, source, Paths(), "", site_lines), site_lines.content.hex()]
    )
    digest = digest_of(content)
    files |= {"nginx.conf": configuration(settings, nginx, source, Paths(), digest, site_lines)}
    unit, unit_digest = _unit(settings, routes, nginx, source, installation)
    return Gateway(
        settings=settings,
        routes=routes,
        files=files,
        digest=digest,
        site_lines=site_lines,
        unit=unit,
        unit_digest=unit_digest,
        engine_credentials=tuple(filter(_is_of_engine, credentials(settings, routes))),
    )


def _is_of_engine(credential: Credential) -> bool:
    return credential.name.startswith(ENGINE_PREFIX)


def data_files(routes: Routes) -> dict[str, str]:
    """The files that nginx's configuration reads, by name."""
    names = {
        f":{route.name}": {
            "recipe": route.target.recipe,
            "to": route.address,
            "listens_at": f"RECIPECTL_ADDRESS={route.target.url}/",
            "written_as": route.written_as or "",
            "on_demand": route.target.on_demand,
            "shown_by": route.target.shown_by,
        }
        for route in routes.by_name.values()
    }
    # Texts: nginx's JavaScript has no methods for an array of a preloaded object (njs 0.7.9).
    ambiguous = {f":{name}": " and ".join(recipes) for name, recipes in routes.ambiguous.items()}
    script = templates().get_template("gateway.js").render()
    return {
        "names.json": json.dumps(names, indent=1) + "\n",
        "ambiguous.json": json.dumps(ambiguous, indent=1) + "\n",
        "gateway.js": script,
    }


def configuration(
    settings: GatewaySettings, nginx: Nginx, source: str, paths: Paths, digest: str, site_lines: SiteLines
) -> str:
    """The text of nginx.conf. A header that the site sets replaces the gateway's: nginx would send both."""
    headers = _HEADERS | (_KEY_HEADERS if settings.keys else {})
    return templates().get_template("gateway.conf.j2").render(
        source=quoting.line(source),
        module=nginx.module,
        listen=settings.listen,
        both_families=ip_address(settings.address[0]) == IPv6Address("::"),
        keys=settings.keys is not None,
        headers={name: value for name, value in headers.items() if name.lower() not in site_lines.headers},
        include=[settings.include] if settings.include else [],
        digest=digest,
        refusals={status: error_json(status, *words) + r"\n" for status, words in _REFUSALS.items()},
        unread_refusals=[
            (statuses, path, status, error_json(status, *words) + r"\n")
            for statuses, path, status, *words in _UNREAD_REFUSALS
        ],
        **(paths._asdict() | ({} if settings.certificate else {"certificate": "", "key": ""})),
    )  # fmt: skip


def credentials(settings: GatewaySettings, routes: Routes) -> list[Credential]:
    """The files that systemd reads for the gateway as root at its start."""
    own = {"certificate": settings.certificate, "key": settings.key, "keys": settings.keys}
    credentials = [Credential(name, path) for name, path in own.items() if path]
    # Without keys of its own, the gateway passes on what clients send.
    targets = {route.target for route in routes.by_name.values() if settings.keys and route.target.key_file}
    for target in sorted(targets):
        credentials.append(Credential(f"{ENGINE_PREFIX}{target.recipe}", target.key_file or ""))
    return credentials


def _unit(
    settings: GatewaySettings, routes: Routes, nginx: Nginx, source: str, installation: Installation
) -> tuple[Unit, str]:
    lines = sandbox.helper_lines(GATEWAY_USER, limited=False)
    if settings.address[1] < 1024:
        lines += [f"{name}=CAP_NET_BIND_SERVICE" for name in ("CapabilityBoundingSet", "AmbientCapabilities")]
    needed = credentials(settings, routes)
    secrets = [credential.setting for credential in needed]
    # Without its key a model refuses what comes through the gateway; the other models go on.
    defaults = [f"SetCredential={each.name}:none" for each in filter(_is_of_engine, needed)]
    # The helper's path is no part of it: another release of recipectl restarts nothing. Nor are the keys of
    # engines, which an apply renews in the gateway that runs.
    kept = [each.setting for each in needed if not _is_of_engine(each)]
    digest = digest_of(json.dumps([lines, kept, nginx.program]))
    words = (nginx.program, "-e", "stderr", "-c", f"{FOLDER}/nginx.conf")
    text = rendered(
        "models-gateway.service.j2",
        source=quoting.line(source),
        credentials=[*secrets, *defaults],
        prepare=quoting.command_line((*installation.helper, "prepare-gateway")),
        start=quoting.command_line(words),
        wait=quoting.command_line((*installation.helper, "wait-for-gateway", "--stop-signal", "SIGQUIT")),
        sandbox=lines,
        digest=digest,
        digest_field=f"{DIGEST_FIELD}={digest}",
    )
    return sealed(Unit(GATEWAY, text)), digest
