"""Which name leads where, and what nginx is told."""

import json
from pathlib import Path

import pytest

from recipectl import gateway_keys
from recipectl.compiler.model import GatewaySettings
from recipectl.compiler.pipeline import resolve_purely
from recipectl.engines.registry import ENGINES
from recipectl.engines.served import served_names
from recipectl.errors import UsageError
from recipectl.gateway import compile, include
from recipectl.gateway.configuration import Nginx, SiteLines, render
from recipectl.gateway.routes import Target, routes, target_of
from recipectl.machine.installation import Installation
from recipectl.machine.runtime import Runtime
from recipectl.place import Place
from recipectl.recipe.hostfile import Gateway as HostGateway
from recipectl.recipe.hostfile import HostSettings
from recipectl.recipe.schema import Recipe
from recipectl.systemd.unitfile import InstalledUnit

NGINX = Nginx("/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_http_js_module.so")


def target(recipe: str, *names: str, url: str = "http://127.0.0.1:8001") -> Target:
    return Target(recipe, url, names or (f"/models/{recipe}",), False)


def test_names_of_the_host_file_win_over_recipes_and_these_over_served_names() -> None:
    found = routes([target("a", "b"), target("b", "org/b"), target("c", "org/c")], {"org/c": "a"}).by_name
    leads = {name: route.target.recipe for name, route in found.items()}
    assert leads == {"a": "a", "b": "b", "c": "c", "org/b": "b", "org/c": "a"}


def test_an_engine_is_asked_by_a_name_that_it_knows() -> None:
    found = routes([target("a", "org/a", "short")], {"fast": "a"}).by_name
    written = {name: route.written_as for name, route in found.items()}
    assert written == {"a": "org/a", "fast": "org/a", "org/a": None, "short": None}


ADAPTERS = {
    "vllm": ("vllm", {"lora_modules": ["sql=/l", '{"name": "sum", "path": "/s"}']}, ("m", "sql", "sum")),
    "one adapter": ("vllm", {"lora-modules": "sql=/l"}, ("m", "sql")),
    "sglang": ("sglang", {"lora_paths": ["sql=/l", "/nameless"]}, ("m", "m:sql")),
    "llamacpp": ("llamacpp", {"lora": "/l.gguf"}, ("m",)),
}


@pytest.mark.parametrize(("backend", "extra_args", "names"), ADAPTERS.values(), ids=ADAPTERS.keys())
def test_adapters_are_served_by_their_names(
    backend: str, extra_args: dict[str, object], names: tuple[str, ...]
) -> None:
    fields = {"name": "a", "model_path": "/m", "served_model_name": "m", "backend": backend}
    recipe = Recipe.model_validate(fields | {"extra_args": extra_args})
    runtime = Runtime("test", ("/v/bin/engine",))
    resolved = resolve_purely(recipe, "/r/a.yaml", runtime, HostSettings(), Installation(("/h",)))
    assert served_names(recipe, resolved.words) == names


def test_a_further_name_of_an_adapter_is_written_as_the_adapter() -> None:
    found = routes([target("a", "base", "sql")], {"queries": "sql", "fast": "a"}).by_name
    assert {name: found[name].written_as for name in ("queries", "fast", "sql")} == {
        "queries": "sql", "fast": "base", "sql": None,
    }  # fmt: skip


def test_what_the_sites_file_includes_counts_and_is_trusted_as_little(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner.conf", tmp_path / "outer.conf"
    inner.write_text(f"# include {tmp_path}/none;\nlimit_rate 5;\n")
    outer.write_text(f"allow all;\nlocation /x {{ include {tmp_path}/in*.conf; }}\n")
    read: list[Path] = []

    def content(path: Path) -> bytes:
        read.append(path)
        return path.read_bytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(include, "_HIDDEN", ())
        lines = include.site_lines(str(outer), content)
        assert lines.content == outer.read_bytes() + inner.read_bytes()
        assert read == [outer, inner]
        outer.write_text("allow all;\ninclude more.conf;\n")
        with pytest.raises(UsageError, match=r"line 2 of .*`more.conf`, which is no absolute path"):
            include.site_lines(str(outer), content)


@pytest.mark.parametrize(("text", "headers"), [
    ('proxy_set_header X-A 1; proxy_set_header\n  "Host" h;', {"x-a", "host"}),
    ("location /g/ {\n    proxy_set_header Authorization '';\n}\n", set()),
    ("# proxy_set_header X-A 1;\nadd_header X 'a;proxy_set_header X-B 1;';\nproxy_set_header X-C ${x}y;\n", {"x-c"}),
    ("location /a { include INNER; }\n", set()),
    ("include\n    'INNER';\n", {"x-inner"}),
])  # fmt: skip
def test_only_headers_of_the_whole_server_replace_the_gateways(
    text: str, headers: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, outer = tmp_path / "inner.conf", tmp_path / "outer.conf"
    inner.write_text("proxy_set_header X-Inner 1;\n")
    outer.write_text(text.replace("INNER", str(inner)))
    monkeypatch.setattr(include, "_HIDDEN", ())
    assert include.site_lines(str(outer), Path.read_bytes).headers == headers


def test_a_gateway_of_the_system_is_none_of_a_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    user = Place(user=True)
    assert compile.compiled(user, GatewaySettings(), []) == (None, ())
    (tmp_path / "recipectl").mkdir()
    (tmp_path / "recipectl/host.yaml").write_text("gateway: {}\n")
    gateway, (problem,) = compile.compiled(user, GatewaySettings(), [])
    assert (gateway, "needs the system's service manager" in problem.sentence) == (None, True)


def test_a_name_that_two_engines_serve_leads_nowhere_unless_the_host_file_decides() -> None:
    twins = [target("a", "same"), target("b", "same")]
    undecided = routes(twins, {})
    assert ({*undecided.by_name}, undecided.ambiguous) == ({"a", "b"}, {"same": ("a", "b")})
    decided = routes(twins, {"same": "b"})
    assert (decided.by_name["same"].target.recipe, decided.ambiguous) == ("b", {})


def test_a_name_of_no_model_and_a_model_behind_a_host_name_are_told() -> None:
    found = routes([target("alpha"), target("far", url="http://gpu1.lan:8001")], {"fast": "alhpa"})
    sentences = [str(error) for error in found.errors]
    assert "far" not in found.by_name
    assert any("did you mean `alpha`?" in sentence for sentence in sentences)
    assert any("whose `host` is a name" in sentence for sentence in sentences)


def test_a_name_of_the_host_file_that_hides_a_recipe_is_told() -> None:
    settings = GatewaySettings(names={"a": "b", "b": "b", "c": "a"})
    told = [str(warning) for warning in compile._hidden(settings, [target("a"), target("b")])]
    assert told == ["`a` is a recipe too, and requests for it go to `b`; choose another name"]


def test_a_wrong_recipe_leaves_the_names_and_the_key_of_its_unit_in_force() -> None:
    facts = 'Recipe=a\nEndpoint=http://127.0.0.1:1\nModel=x\nServed=x "y z"\nApiKey=/etc/key\n'
    unit = InstalledUnit("model-a.service", f"[Unit]\n\n[X-Recipectl]\n{facts}")
    found = target_of(unit, ())
    assert found is not None
    assert (found.names, found.key_file) == (("x", "y z"), "/etc/key")


def test_the_key_of_an_engine_may_be_missing_and_that_of_the_gateway_may_not() -> None:
    engine = target("a")._replace(key_file="/etc/key")
    settings = GatewaySettings(keys="/etc/keys")
    unit = render(
        settings, routes([engine], {}), NGINX, "/h", Installation(("/h",), systemd_version=252)
    ).unit.text
    assert [line for line in unit.splitlines() if "Credential=" in line] == [
        "LoadCredential=keys:/etc/keys", "LoadCredential=engine-a:/etc/key", "SetCredential=engine-a:none",
    ]  # fmt: skip


PORTS = {
    "the same address": ("192.168.1.5:8000", "192.168.1.5", True),
    "every address": ("192.168.1.5:8000", "0.0.0.0", True),
    "loopback": ("192.168.1.5:8000", "127.0.0.1", False),
    "loopback with another spelling": ("[::1]:8000", "0:0:0:0:0:0:0:1", True),
}


@pytest.mark.parametrize(("listen", "host", "clash"), PORTS.values(), ids=PORTS.keys())
def test_a_model_and_the_gateway_may_have_one_port_at_two_addresses(
    listen: str, host: str, clash: bool
) -> None:
    model = target("a", url="http://127.0.0.1:8000")._replace(host=host)
    settings = GatewaySettings(listen=listen)
    if clash:
        with pytest.raises(UsageError, match="`a` listens at that port"):
            compile._require_own_port(settings, [model])
    else:
        compile._require_own_port(settings, [model])


@pytest.mark.parametrize("name", ["__proto__", "constructor", 'x"; return 200; "', "${x}", "a\nb", "é/ü"])
def test_no_name_is_a_word_of_nginx_or_javascript(name: str) -> None:
    """Names are in a file of JSON alone, each behind a colon."""
    hostile = routes([target("a", name)], {})
    made = render(GatewaySettings(), hostile, NGINX, "/etc/recipectl/host.yaml", Installation(("/helper",)))
    plain = render(
        GatewaySettings(), routes([], {}), NGINX, "/etc/recipectl/host.yaml", Installation(("/helper",))
    )
    differing = {file for file in made.files if made.files[file] != plain.files[file]}
    assert {*json.loads(made.files["names.json"])} == {f":{name}", ":a"}
    assert differing == {"names.json", "nginx.conf"}
    assert made.files["nginx.conf"].replace(made.digest, plain.digest) == plain.files["nginx.conf"]


def test_a_privileged_port_and_credentials_are_in_the_unit() -> None:
    settings = GatewaySettings("0.0.0.0:443", "/tls/cert.pem", "/tls/key.pem", "/etc/keys")
    made = render(settings, routes([], {}), NGINX, "/etc/recipectl/host.yaml", Installation(("/helper",)))
    for line in (
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "LoadCredential=certificate:/tls/cert.pem",
        "LoadCredential=key:/tls/key.pem",
        "LoadCredential=keys:/etc/keys",
    ):
        assert line in made.unit.text.splitlines()
    assert "listen 0.0.0.0:443 ssl;" in made.files["nginx.conf"]


def test_another_release_of_recipectl_restarts_no_gateway() -> None:
    made = [
        render(GatewaySettings(), routes([], {}), NGINX, "/h", Installation((helper,)))
        for helper in ("/helper-1", "/helper-2")
    ]
    assert made[0].unit != made[1].unit
    assert (made[0].unit_digest, made[0].digest) == (made[1].unit_digest, made[1].digest)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("ann", "line 1 is not"),
        ("a k\n\nb k", "line 3 has the key of `a`"),
        ("# none", "it has no key"),
        ("a k\n# \udce9", "line 2 is not UTF-8"),
        ("a k\nsk-abcdefghijklmnop1234 anna", "line 2 has a key where its name should be"),
        ("kPj3WvGm0Zz1qLr8Tt5yUu7iOo9pAa2s anna", "line 1 has a key where its name should be"),
        ("3f1c0a9be2d44c7f8a6b5e1d0c2f4a7b anna", "line 1 has a key where its name should be"),
    ],
)
def test_a_wrong_file_of_keys_is_told_without_a_key(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        gateway_keys.parse(text.encode(errors="surrogateescape"))


def test_keys_are_kept_as_digests() -> None:
    files = gateway_keys.as_objects(gateway_keys.parse(b"ann sk-ann\nbob\tsk-bob"), {})
    assert {*json.loads(files["keys.json"]).values()} == {"ann", "bob"}
    # In one order: the gateway writes what systemd's folder has, and `apply` compares it with what it expects.
    orders = [
        gateway_keys.as_objects({}, dict(order))
        for order in ([("b", "1"), ("a", "2")], [("a", "2"), ("b", "1")])
    ]
    assert orders[0] == orders[1]
    assert "sk-" not in files["keys.json"]


@pytest.mark.parametrize(
    ("content", "key"),
    [
        (b'LLAMA_API_KEY="sk-1"\n', "sk-1"),
        (b"# a=b\nHF_HOME=/x\nVLLM_API_KEY='sk-1'\n\nOTHER=2\n", "sk-1"),
        (b"LLAMA_API_KEY=a\nLLAMA_API_KEY=sk-1", "sk-1"),
        (b"HF_TOKEN=x\n", ""),
    ],
)
def test_the_key_of_an_engine_is_found_among_other_lines(content: bytes, key: str) -> None:
    assert gateway_keys.engine_key(content) == key


def test_the_names_of_keys_are_those_of_all_engines() -> None:
    assert {*gateway_keys.KEY_VARIABLES} == {
        name for engine in ENGINES.values() for name in engine.key_variables
    }


def test_the_sites_headers_join_ours() -> None:
    """nginx inherits `proxy_set_header` only where a level has none of its own."""
    settings = GatewaySettings(keys="/etc/keys", include="/etc/site.conf")
    text = render(settings, routes([], {}), NGINX, "/h", Installation(("/helper",))).files["nginx.conf"]
    server = text[text.index("    server {") : text.index("location")]
    headers = [line for line in server.splitlines() if "proxy_set_header" in line]
    assert text.count("proxy_set_header") == len(headers) == 8
    assert text.index(headers[-1]) < text.index("include /etc/site.conf;")
    site = SiteLines(headers=frozenset({"host"}))
    text = render(settings, routes([], {}), NGINX, "/h", Installation(("/helper",)), site).files["nginx.conf"]
    assert ("proxy_set_header Host" in text, "proxy_set_header X-Request-ID" in text) == (False, True)


@pytest.mark.parametrize(
    "listen", ["[::1%a b;]:8000", "[[::1]]:8000", "127.0.0.1:８０００", "::1:80", "1.2.3.4:0"]
)
def test_an_address_that_nginx_would_read_otherwise_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match="must be an address and a port"):
        HostGateway(listen=listen)


@pytest.mark.parametrize(("listen", "takes_both"), [
    ("[::]:80", True), ("[::0]:80", True), ("[::1]:80", False), ("0.0.0.0:80", False),
])  # fmt: skip
def test_every_spelling_of_all_addresses_takes_both_families(listen: str, takes_both: bool) -> None:
    made = render(GatewaySettings(listen), routes([], {}), NGINX, "/h", Installation(("/helper",)))
    assert ("ipv6only=off" in made.files["nginx.conf"]) is takes_both


def test_a_recipe_with_the_name_of_the_api_is_told() -> None:
    (warning,) = compile._warnings(GatewaySettings(), routes([target("v1")], {}))
    assert "the recipe `v1` has no path of its own" in str(warning)
