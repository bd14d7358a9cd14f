"""One address for several real models: by name, by path, asleep, with keys, through reloads."""

import concurrent.futures
import contextlib
import http.client
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from httpx2 import HTTPError

from live.common import ROOT, recipe, recipectl, remove_all, script, show, systemctl, until, until_listening

pytestmark = pytest.mark.systemd
HOST_FILE = Path("/etc/recipectl/host.yaml")
ADDRESS = "http://127.0.0.1:8000"
KEYS = Path("/etc/recipectl/gateway.keys")
UNITS = Path("/etc/systemd/system")


@pytest.fixture(autouse=True)
def nginx() -> Iterator[None]:
    """Debian's nginx and its module, as their packages have them, without the site's unit."""
    subprocess.run(["cp", "-a", f"{ROOT}/.build/nginx/usr/.", "/usr"], check=True)
    yield
    HOST_FILE.unlink(missing_ok=True)
    remove_all()


def host_file(**gateway: object) -> None:
    HOST_FILE.parent.mkdir(parents=True, exist_ok=True)
    HOST_FILE.write_text(json.dumps({"gateway": gateway}))


def ask(model: object, path: str = "/v1/chat/completions", **fields: object) -> tuple[int, dict[str, object]]:
    """The status and the answer; `headers` and `body` are the request's own."""
    headers = {"Content-Type": "application/json", **fields.pop("headers", {})}  # type: ignore[dict-item]
    body = {"max_tokens": 4, "messages": [{"role": "user", "content": "hello"}], **fields, "model": model}
    request = urllib.request.Request(ADDRESS + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=100) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def assert_unreachable(name: str, **fields: object) -> None:
    """A model gets no request, whether its name is in the body or in the path."""
    for path in ("/v1/chat/completions", f"/{name}/v1/chat/completions"):
        status, answer = ask(name, path, **fields)
        assert (status, answer["error"]["code"]) == (503, "model_unreachable")  # type: ignore[index]


def private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def two_models() -> None:
    """`alpha` runs, `beta` sleeps."""
    recipe("alpha", port=18201, autostart=True, served_model_name="org/alpha")
    recipe("beta", port=18202, on_demand={"idle": "10min"})
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "alpha").returncode == 0


def test_nginx_reaches_its_files_whatever_roots_umask_is_or_the_closed_folder_is_told() -> None:
    two_models()
    host_file()
    before = os.umask(0o077)
    try:
        assert recipectl("apply").returncode == 0
    finally:
        os.umask(before)
    assert "alpha" in models()
    HOST_FILE.parent.chmod(0o700)
    try:
        told = recipectl("apply")
    finally:
        HOST_FILE.parent.chmod(0o755)
    assert (told.returncode, "run `chmod o+x /etc/recipectl`" in told.stderr) == (1, True), told.stderr
    assert "alpha" in models()


def models() -> dict[str, str]:
    with urllib.request.urlopen(ADDRESS + "/v1/models", timeout=20) as answer:
        return {row["id"]: row["state"] for row in json.load(answer)["data"]}


def test_two_models_answer_at_one_address_and_one_of_them_is_woken() -> None:
    host_file(names={"fast": "alpha"})
    two_models()
    assert models() | {"fast": "up"} == models()
    assert (models()["alpha"], models()["beta"], models()["org/alpha"]) == ("up", "asleep", "up")
    for name in ("alpha", "org/alpha", "fast"):
        status, answer = ask(name)
        assert (status, answer["model"]) == (200, "org/alpha")
    assert (ask("beta")[0], models()["beta"]) == (200, "up")
    assert ask("x", path="/alpha/v1/chat/completions")[0] == 200
    assert ask("x", path="/org/alpha/v1/chat/completions")[0] == 200
    assert recipectl("remove", "beta").returncode == 0
    assert {*models()} == {"alpha", "org/alpha", "fast"}
    assert re.search(r"^gateway +ok$", recipectl("doctor").stdout, re.M)


def test_the_openai_client_over_tls_with_a_key_a_stream_and_a_thousand_names() -> None:
    certificate, key = Path("/etc/recipectl/tls.pem"), Path("/etc/recipectl/tls.key")
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=models"]
    files = ["-out", str(certificate), "-keyout", str(key)]
    subprocess.run(
        [*words, "-addext", "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True
    )
    KEYS.write_text("ann sk-ann\n")
    KEYS.chmod(0o600)
    names = {f"name-{number}": "alpha" for number in range(1000)}
    settings = {
        "listen": "127.0.0.1:8443",
        "keys": str(KEYS),
        "tls": {"certificate": str(certificate), "key": str(key)},
    }
    host_file(**settings, names=names)
    two_models()
    assert re.search(r"tls\.pem expires on 20..-..-..; renew it", recipectl("doctor").stdout)
    trusted = openai.DefaultHttpxClient(verify=ssl.create_default_context(cafile=str(certificate)))
    client = openai.OpenAI(base_url="https://127.0.0.1:8443/v1", api_key="sk-ann", http_client=trusted)
    with client:
        assert {"alpha", "beta", *names} <= {model.id for model in client.models.list()}
        assert client.models.retrieve("name-999").id == "name-999"
        hello = [{"role": "user", "content": "hello"}]
        for name in ("name-999", "beta"):
            answer = client.chat.completions.create(model=name, messages=hello, max_tokens=4)  # type: ignore[call-overload]
            assert answer.choices[0].message.content
        before = show_gateway("MainPID")
        host_file(**settings, names=names | {"more": "alpha"})
        applied = recipectl("apply")
        assert "reloaded models-gateway.service" in applied.stdout, applied.stderr
        assert show_gateway("MainPID") == before
        assert client.models.retrieve("more").id == "more"
        with pytest.raises(openai.NotFoundError, match="did you mean `name-9"):
            client.chat.completions.create(model="nam-999", messages=hello)  # type: ignore[call-overload]
        denied = client.with_options(api_key="sk-bob", max_retries=0)
        with pytest.raises(openai.AuthenticationError, match="the key is missing or wrong"):
            denied.models.list()
        # A stream comes as the engine writes it: its first words are here while the last are not yet written.
        stream = client.completions.create(model="alpha", prompt="Once", max_tokens=2000, stream=True)
        first = next(iter(stream))
        systemctl("kill", "-s", "KILL", "model-alpha.service")
        pieces = [first]
        with pytest.raises((openai.APIError, HTTPError)):
            pieces.extend(stream)
        assert first.choices[0].text
        assert pieces[-1].choices[0].finish_reason is None
    for path in (certificate, key, KEYS):
        path.unlink()


def test_a_certificate_that_has_expired_is_told(tmp_path: Path) -> None:
    Path(tmp_path, "ca.cnf").write_text(
        f"[ca]\ndefault_ca=a\n[a]\ndatabase={tmp_path}/index\nnew_certs_dir={tmp_path}\nrand_serial=yes\n"
        "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
    )
    Path(tmp_path, "index").touch()
    key, request, certificate = (
        Path(f"/etc/recipectl/{name}.pem") for name in ("key", "request", "certificate")
    )
    key.parent.mkdir(exist_ok=True)
    words = [
        "req",
        "-new",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        key,
        "-out",
        request,
        "-subj",
        "/CN=x",
    ]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    words = ["ca", "-batch", "-config", tmp_path / "ca.cnf", "-selfsign", "-keyfile", key, "-in", request]
    dates = ["-startdate", "250101000000Z", "-enddate", "250201000000Z"]
    subprocess.run(["openssl", *words, "-out", certificate, *dates], check=True, capture_output=True)
    host_file(tls={"certificate": str(certificate), "key": str(key)})
    recipe("alpha", port=18201)
    applied = recipectl("apply")
    sentence = f"{certificate} has expired; renew it, then run `recipectl apply`"
    assert (applied.returncode, f"warning: {HOST_FILE}:1:" in applied.stderr, sentence in applied.stderr) == (
        0,
        True,
        True,
    ), applied
    for path in (key, request, certificate):
        path.unlink()


def test_what_leads_nowhere_is_told_in_the_form_of_openai() -> None:
    host_file()
    two_models()
    status, answer = ask("alhpa")
    assert (status, "did you mean `alpha`?" in str(answer["error"])) == (404, True)
    assert ask(7)[0] == 400
    assert ask("__proto__")[0] == 404
    assert ask("x", path="/alhpa/v1/completions")[0] == 404
    for path in ("/alpha/v1/../metrics", "/alpha/v1/%2e%2e/metrics", "/alpha/v1/x/.."):
        assert ask("x", path=path)[0] == 404, path
    recipectl("stop", "alpha")
    status, answer = ask("alpha")
    assert (status, "recipectl status alpha" in str(answer["error"])) == (503, True)


def test_what_nginx_and_the_sites_lines_refuse_is_told_in_the_form_of_openai() -> None:
    site = Path("/etc/recipectl/site.conf")
    site.parent.mkdir(parents=True, exist_ok=True)
    paths = {
        "deny": "deny all;",
        "basic": "auth_basic x; auth_basic_user_file /dev/null;",
        "many": "return 429;",
    }
    site.write_text("".join(f"location /{path} {{ {lines} }}\n" for path, lines in paths.items()))
    host_file(include=str(site))
    recipe("alpha", port=18201)
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    for path, status, said in (
        ("/deny", 403, "refuses the request"),
        ("/basic", 401, "the key is missing"),
        ("/many", 429, "too many requests"),
        (f"/{'a' * 40000}", 414, "too long"),
        ("/:400", 404, "the path"),
        ("/alpha/v1/..%2fmetrics%ff", 404, "nothing here"),
        ("/metrics/../v1/completions", 404, "no model `x`"),
    ):
        told, answer = ask("x", path)
        assert (told, said in str(answer["error"])) == (status, True), (path, answer)
    Path("/etc/recipectl/site.conf").write_text("limit_conn callers 1;\n")
    assert recipectl("apply").returncode == 0
    with socket.create_connection(("127.0.0.1", 8000), timeout=20) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n")
        end = time.monotonic() + 60
        while (told := ask("x"))[0] != 429:
            assert time.monotonic() < end, told
        assert told[1]["error"]["code"] == "too_many_requests"  # type: ignore[index]
    site.write_text("")
    assert recipectl("apply").returncode == 0
    told, answer = ask("x", headers={"X-Long": "a" * 40000})
    assert (told, "a header of it is too long" in str(answer["error"])) == (400, True)
    for line, status in (
        (b"TRACE /v1/models HTTP/1.1\r\nHost: x", b"405"),
        (b"?\x01", b"400"),
        (b"GET / HTTP/9.9", b"505"),
    ):
        with socket.create_connection(("127.0.0.1", 8000), timeout=20) as client:
            client.sendall(line + b"\r\n\r\n")
            reply = b"".join(iter(lambda: client.recv(65536), b""))
        assert (reply.startswith(b"HTTP/1.1 " + status), b'"error"' in reply) == (True, True), reply
    site.unlink()


def test_a_key_is_asked_for_and_no_engine_sees_it() -> None:
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    KEYS.write_text("# who asks\nann sk-ann\nbob sk-bob\n")
    KEYS.chmod(0o600)
    host_file(keys=str(KEYS))
    two_models()
    assert ask("alpha")[0] == 401
    assert ask("alpha", f"/{'a' * 40000}", headers={"X-Api-Key": "sk-bob"})[0] == 414
    assert ask("alpha", headers={"X-Api-Key": "sk-bob", "Authorization": "Bearer none"})[0] == 200
    for path in (b"/v1/x", b"/:999", b"/x"):
        with socket.create_connection(
            ("127.0.0.1", 8000), timeout=20
        ) as stranger:  # its body is not waited for
            stranger.sendall(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n{")
            assert stranger.recv(4096).startswith(b"HTTP/1.1 401")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)) as browser:

        def status(method: str) -> int:
            browser.request(method, "/v1/models")
            with browser.getresponse() as answer:
                answer.read()
                return answer.status

        assert status("OPTIONS") == 401
        KEYS.with_name("site.conf").write_text("if ($request_method = OPTIONS) { return 204; }\n")
        host_file(keys=str(KEYS), include=str(KEYS.with_name("site.conf")))
        assert recipectl("apply").returncode == 0
        browser.close()  # the reload closes it, too
        assert (status("OPTIONS"), status("GET")) == (204, 401)
    private(KEYS.with_name("swapped.keys"), "sk-abcdefghijklmnopqrst ann\n")
    host_file(keys=str(KEYS.with_name("swapped.keys")))
    refused = recipectl("apply").stderr
    assert "is wrong: line 1 has a key where its name should be" in refused
    assert "sk-abc" not in refused
    host_file(keys=str(KEYS))
    assert recipectl("apply").returncode == 0
    assert ask("alpha", headers={"Authorization": "Bearer SK-ANN"})[0] == 401
    assert ask("alpha", headers={"Authorization": "Bearer sk-ann"})[0] == 200
    assert ask("alpha", headers={"X-Api-Key": "sk-bob"})[0] == 200
    log = subprocess.run(
        ["journalctl", "-u", "models-gateway", "-o", "cat"], capture_output=True, text=True
    ).stdout
    assert '"key":"ann","status":"200"' in log
    assert "sk-" not in log
    KEYS.write_text("ann sk-new\n")
    before = show_gateway("MainPID")
    assert json.loads(recipectl("gateway", "--json").stdout)["answers"] is True
    KEYS.rename(f"{KEYS}.away")
    assert f"{KEYS} cannot be read: No such file or directory; create it" in recipectl("doctor").stdout
    Path(f"{KEYS}.away").rename(KEYS)
    assert "keys or its certificate was changed" in recipectl("apply").stdout
    assert (show_gateway("MainPID") != before, ask("alpha", headers={"X-Api-Key": "sk-new"})[0]) == (
        True,
        200,
    )
    KEYS.unlink()


def test_the_key_of_an_engine_is_added_and_a_wrong_file_of_keys_is_told() -> None:
    secret = Path("/etc/recipectl/gamma.env")
    private(KEYS, "ann sk-ann\n"), private(secret, "LLAMA_API_KEY=sk-engine\n")
    host_file(keys=str(KEYS))
    recipe("gamma", port=18203, autostart=True, secrets={"LLAMA_API_KEY": str(secret)})
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "gamma").returncode == 0
    assert ask("gamma", headers={"Authorization": "Bearer sk-ann"})[0] == 200
    assert ask("gamma", headers={"Authorization": "Bearer sk-engine"})[0] == 401
    KEYS.write_text("ann\n")
    wrong = recipectl("apply")
    assert (wrong.returncode, "line 1 is not `name key`" in wrong.stderr) == (2, True), wrong.stderr
    assert ask("gamma", headers={"Authorization": "Bearer sk-ann"})[0] == 200
    KEYS.unlink(), secret.unlink()


def test_a_model_with_a_key_of_its_own_comes_changes_and_goes_without_a_restart() -> None:
    secret, other = Path("/etc/recipectl/gamma.env"), Path("/etc/recipectl/other.env")
    (
        private(KEYS, "ann sk-ann\n"),
        private(secret, "LLAMA_API_KEY=sk-first\n"),
        private(other, "LLAMA_API_KEY=sk-other\n"),
    )
    host_file(keys=str(KEYS))
    recipe("alpha", port=18201, autostart=True)
    assert recipectl("apply").returncode == 0
    key = {"headers": {"Authorization": "Bearer sk-ann"}}
    until_listening(8000)
    started = show_gateway("ExecMainPID")
    engines = Path("/run/models-gateway/engines.json")

    def changes(**fields: object) -> tuple[int, str, str]:
        recipe("gamma", port=18203, autostart=True, **fields)
        done = recipectl("apply")
        assert recipectl("wait", "alpha", "gamma").returncode == 0
        return done.returncode, show_gateway("ExecMainPID"), json.loads(engines.read_text()).get(":gamma", "")

    assert changes(secrets={"LLAMA_API_KEY": str(secret)}) == (0, started, "sk-first")
    assert (ask("gamma", **key)[0], ask("alpha", **key)[0]) == (200, 200)
    private(secret, "LLAMA_API_KEY=sk-second\n")
    assert (
        "other keys of engines' own APIs than their files; run `recipectl apply`"
        in recipectl("doctor").stdout
    )
    assert changes(secrets={"LLAMA_API_KEY": str(secret)}) == (0, started, "sk-second")
    assert changes(secrets={"LLAMA_API_KEY": str(other)}) == (0, started, "sk-other")
    assert ask("gamma", **key)[0] == 200
    status = engines.stat()
    assert (status.st_mode & 0o777, status.st_uid) == (0o600, pwd.getpwnam("models-gateway").pw_uid)
    assert recipectl("apply").stdout == ""
    removed = recipectl("remove", "gamma")
    assert (removed.returncode, removed.stderr, show_gateway("ExecMainPID")) == (0, "", started)
    assert (ask("gamma", **key)[0], engines.read_text()) == (404, "{}")
    Path("/etc/recipectl/recipes/gamma.json").unlink(missing_ok=True)
    systemctl("restart", "models-gateway.service")
    until_listening(8000)
    assert ask("alpha", **key)[0] == 200
    KEYS.unlink(), secret.unlink(), other.unlink()


def test_what_is_wrong_with_one_model_leaves_its_way_and_the_others_in_force() -> None:
    secret = Path("/etc/recipectl/gamma.env")
    private(KEYS, "\ufeffann sk-ann\n"), private(secret, "LLAMA_API_KEY=sk-engine\n")
    host_file(keys=str(KEYS))
    gamma = {"port": 18203, "autostart": True, "secrets": {"LLAMA_API_KEY": str(secret)}}
    gamma["args"] = ["--alias", "one,two words"]
    recipe("gamma", **gamma)
    recipe("alpha", port=18201, autostart=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha", "gamma").returncode == 0
    key = {"headers": {"Authorization": "Bearer sk-ann"}}
    names = ("gamma", "one", "two words", "alpha")
    assert [ask(name, **key)[0] for name in names] == [200] * 4
    started = show_gateway("ExecMainPID")
    recipe("gamma", **gamma, typo=1)
    wrong = recipectl("apply")
    assert (wrong.returncode, show_gateway("ExecMainPID")) == (2, started), wrong.stdout
    assert [ask(name, **key)[0] for name in names] == [200] * 4
    engines = Path("/run/models-gateway/engines.json")
    assert json.loads(engines.read_text()) == {":gamma": "sk-engine"}
    secret.unlink()
    systemctl("restart", "models-gateway.service")
    until_listening(8000)
    assert ask("alpha", **key)[0] == 200
    KEYS.write_text("bob sk-bob\n")
    assert f"{KEYS}: it was changed after the gateway had read it" in recipectl("doctor").stdout
    sealed = Path("/etc/recipectl/keys.cred")
    sealed.write_text("rubbish\n")
    host_file(keys=str(sealed))
    refused = recipectl("apply")
    assert "keys.cred is wrong: systemd cannot decrypt it" in refused.stderr
    assert ask("alpha", **key)[0] == 200
    KEYS.unlink(), sealed.unlink()


def test_a_gateway_without_a_right_recipe_is_started_once_and_answers() -> None:
    Path("/etc/recipectl/recipes").mkdir(parents=True, exist_ok=True)
    host_file()
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert ask("nobody")[0] == 404
    started = show_gateway("ExecMainPID")
    recipe("alpha", typo=1)
    assert (recipectl("apply").returncode, show_gateway("ExecMainPID")) == (2, started)
    empty = [
        "curl",
        "-s",
        "-w",
        "%{http_code}",
        "-o",
        "/dev/null",
        "-X",
        "POST",
        "-d",
        "",
        f"{ADDRESS}/v1/completions",
    ]
    assert subprocess.run(empty, capture_output=True, text=True).stdout == "400"


def test_nobody_else_gets_what_is_meant_for_a_model_that_does_not_run() -> None:
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    KEYS.write_text("ann sk-ann\n")
    engine_key = Path("/etc/recipectl/engine.key")
    engine_key.write_text('LLAMA_API_KEY="sk-engine"\n')
    for file in (KEYS, engine_key):
        file.chmod(0o600)
    host_file(keys=str(KEYS))
    secret = {"LLAMA_API_KEY": str(engine_key)}
    recipe("alpha", port=18201, autostart=True, secrets=secret, canaries=[{"ask": "hello"}])
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    headers = {"Authorization": "Bearer sk-ann"}
    assert ask("alpha", headers=headers)[0] == 200
    systemctl("stop", "model-alpha.service")
    with socket.create_server(("127.0.0.1", 18201)) as stranger:
        stranger.settimeout(1)
        assert_unreachable("alpha", headers=headers)
        subprocess.run(["systemctl", "start", "model-alpha-canaries.service"], check=False)
        words = ["journalctl", "-u", "model-alpha-canaries.service", "-o", "cat", "--no-pager"]
        told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert "port 18201 is held by user 0, not by the model: nothing is asked" in told
        with pytest.raises(TimeoutError):
            stranger.accept()


SLOW = """
import sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    do_POST = do_GET
time.sleep(8)
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


@pytest.mark.usefixtures("haproxy")
def test_nobody_else_gets_what_is_meant_for_a_model_that_loads_or_whose_socket_is_down() -> None:
    folder = Path("/srv/slow")
    folder.mkdir(exist_ok=True)
    engine = script(folder / "llama-server", SLOW)
    recipe("alpha", port=18201, binary=engine)
    recipe("beta", port=18202, on_demand={"idle": "10min"})
    recipe("gamma", port=18203, queue={"wait": "30s"}, autostart=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "gamma").returncode == 0
    host_file()  # models that run already are reached at once
    applied = recipectl("apply", "--no-restart")
    assert "starting model-gamma-reachable.service" in applied.stdout, applied.stdout
    assert (ask("beta")[0], ask("gamma")[0]) == (200, 200)
    assert recipectl("stop", "--socket", "beta", "gamma").returncode == 0
    systemctl("start", "--no-block", "model-alpha.service")
    end = time.monotonic() + 5
    while show("alpha", "SubState") != "start-post":
        assert time.monotonic() < end
        time.sleep(0.05)
    for name, port in (("alpha", 18201), ("beta", 18202), ("gamma", 18203)):
        with socket.create_server(("127.0.0.1", port)) as stranger:
            stranger.settimeout(0.5)
            assert_unreachable(name)
            with contextlib.suppress(TimeoutError):
                while True:
                    with stranger.accept()[0] as connection:  # a unit that loads is asked whether it is ready
                        assert connection.recv(100).startswith(b"GET /health "), name
    assert recipectl("start", "alpha", "beta", "gamma").returncode == 0
    until("alpha-reachable", "ActiveState", "active", timeout_sec=2)
    systemctl("kill", "-s", "KILL", "model-alpha.service")
    until("alpha-reachable", "ActiveState", "inactive", timeout_sec=2)
    assert (ask("beta")[0], ask("gamma")[0]) == (200, 200)
    systemctl("stop", "model-gamma-reachable.service")
    fault = "model-gamma-reachable.service does not run, and no request of the gateway reaches gamma"
    assert fault in recipectl("doctor").stdout
    assert recipectl("apply").returncode == 0
    assert ask("gamma")[0] == 200


@pytest.mark.usefixtures("haproxy")
def test_a_model_that_moves_gets_nothing_at_its_old_port_where_the_gateway_cannot_follow() -> None:
    kinds = {
        "alpha": {"autostart": True},
        "beta": {"on_demand": {}},
        "gamma": {"queue": True, "autostart": True},
    }

    def apply(first_port: int, include: str) -> subprocess.CompletedProcess[str]:
        private(Path("/etc/recipectl/site.conf"), include)
        Path("/etc/recipectl/site.conf").chmod(0o644)
        for port, (name, fields) in enumerate(kinds.items(), start=first_port):
            recipe(name, port=port, **fields)
        applied = recipectl("apply")
        assert recipectl("wait", "alpha", "gamma").returncode == 0
        return applied

    host_file(include="/etc/recipectl/site.conf")
    assert apply(18201, "").returncode == 0
    assert [ask(name)[0] for name in kinds] == [200, 200, 200]
    applied = apply(18211, "nonsense;\n")
    assert applied.returncode == 2
    for name, port in (("alpha", 18201), ("beta", 18202), ("gamma", 18203)):
        assert (
            f"`{name}` moves from http://127.0.0.1:{port}, and the gateway cannot be changed"
            in applied.stderr
        )
        with socket.create_server(("127.0.0.1", port)) as stranger:
            stranger.settimeout(0.5)
            assert_unreachable(name)
            with pytest.raises(TimeoutError):
                stranger.accept()
    assert models() == dict.fromkeys(kinds, "down")
    assert apply(18211, "").returncode == 0
    assert [ask(name)[0] for name in kinds] == [200, 200, 200]


def test_localhost_is_the_address_where_the_engine_listens() -> None:
    """llama.cpp listens at the first one of /etc/hosts, on Debian ::1."""
    hosts = Path("/etc/hosts")
    before = hosts.read_text()
    hosts.write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n")
    try:
        host_file()
        server = next(
            (ROOT / ".build/llama-server").glob("lib/python3*/site-packages/skulk*/bin/llama-server")
        )
        recipe("alpha", port=18201, host="localhost", binary=str(server))
        recipe("beta", port=18202, host="localhost", on_demand={})
        assert recipectl("apply").returncode == 0
        assert recipectl("start", "alpha").returncode == 0
        assert (ask("alpha")[0], ask("beta")[0]) == (200, 200)
    finally:
        hosts.write_text(before)


ECHO = """
import json, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({"headers": self.headers.items(), "body": body}).encode())
port = int(sys.argv[sys.argv.index("--port") + 1])
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def test_an_engine_gets_what_the_site_and_the_client_say_and_no_key_of_the_gateway() -> None:
    engine = script(Path("/opt/echo"), ECHO)
    site, secret = Path("/etc/recipectl/site.conf"), Path("/etc/recipectl/echo.env")
    KEYS.parent.mkdir(parents=True, exist_ok=True)
    site.write_text("proxy_set_header X-Site one;\n")
    KEYS.write_text("ann sk-ann\n")
    secret.write_text('# the key of the engine\nHF_HOME=/x\nLLAMA_API_KEY="sk-engine"\n')
    for path in (KEYS, secret):
        path.chmod(0o600)
    host_file(keys=str(KEYS), include=str(site), names={"fast": "one"})
    for name, port, secrets in (("one", 18201, {"LLAMA_API_KEY": str(secret)}), ("two", 18202, {})):
        recipe(name, port=port, binary=engine, served_model_name="same", secrets=secrets, autostart=True)
    recipe("three", port=18203, binary=engine, autostart=True)
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "one", "three").returncode == 0
    key = {"Authorization": "Bearer sk-ann"}
    ambiguous = ask("same", headers=key)
    assert (ambiguous[0], "served by one and two; ask for" in str(ambiguous[1]["error"])) == (404, True)
    for name, expected in (("one", ["Bearer sk-engine"]), ("three", [])):
        headers = ask(name, headers=key)[1]["headers"]
        assert [value for header, value in headers if header == "Authorization"] == expected  # type: ignore[attr-defined]
        assert {("X-Site", "one"), ("Host", "127.0.0.1:8000")} < {(*pair,) for pair in headers}  # type: ignore[attr-defined]
    nested = '{"a":' * 60 + "1" + "}" * 60  # njs's JSON.parse takes 31
    for body in (
        f'{{"x":{nested},"v":[{",".join(["[]"] * 80000)}],"model": "fast"}}',
        '{"seed":12345678901234567890,"temperature":1.0,"model":"fast","tools":[{"model":"x"}]}',
        '{"tools":[{"model":"fast"}],"model": "fast"}',
    ):
        request = urllib.request.Request(f"{ADDRESS}/v1/completions", body.encode(), key)
        with urllib.request.urlopen(request, timeout=60) as answer:
            expected = body.replace(',"model":"fast"', ',"model":"same"').replace(
                '"model": "fast"', '"model": "same"'
            )
            assert json.load(answer)["body"] == expected
    for path, content, mode, told in (
        (site, b"proxy_set_header X-Site two;\n", 0o600, "Permission denied"),
        (KEYS, b"# Ren\xe9\nann sk-ann\n", 0o600, "line 1 is not UTF-8"),
    ):
        before = path.read_bytes()
        path.write_bytes(content)
        path.chmod(mode)
        wrong = recipectl("apply")
        assert (wrong.returncode, told in wrong.stderr) == (2, True), wrong.stderr
        path.write_bytes(before)
        site.chmod(0o644)
        assert ask("one", headers=key)[0] == 200
    for path in (KEYS, secret, site):
        path.unlink()


ENGINE_OF_ITS_OWN = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        for name, value in (("X-Accel-Redirect", "/internal/hostname"), ("X-Accel-Limit-Rate", "1")):
            self.send_header(name, value)
        self.send_header("Content-Length", "20000")
        self.end_headers()
        self.wfile.write(b"e" * 20000)
HTTPServer(("127.0.0.1", 18201), Handler).serve_forever()
"""


def test_an_engine_does_not_control_nginx() -> None:
    engine = Path("/opt/hostile-engine")
    engine.write_text(f"#!{sys.executable} -IS\n{ENGINE_OF_ITS_OWN}")
    engine.chmod(0o755)
    site = Path("/etc/recipectl/gateway.conf")
    site.parent.mkdir(parents=True, exist_ok=True)
    site.write_text("location /internal/ { internal; alias /etc/; }\n")
    host_file(include=str(site))
    recipe("alpha", port=18201, autostart=True, binary=str(engine), model_path="tiny", ready={"path": "/"})
    applied = recipectl("apply")
    assert applied.returncode == 0, applied.stderr
    assert recipectl("wait", "alpha").returncode == 0
    with urllib.request.urlopen(f"{ADDRESS}/alpha/v1/x", timeout=60) as answer:
        assert answer.read() == b"e" * 20000


def test_a_port_that_is_taken_is_told_and_models_are_applied() -> None:
    words = ["systemd-run", "-q", "--unit=stranger", "/usr/bin/python3", "-m", "http.server", "8000"]
    subprocess.run([*words, "--bind", "127.0.0.1"], check=True)
    until_listening(8000)
    host_file()
    recipe("alpha", port=18201)
    applied = recipectl("apply")
    sentence = ": 127.0.0.1:8000 is taken by process "
    assert (applied.returncode, sentence in applied.stderr, "of stranger.service; see" in applied.stderr) == (
        1, True, True,
    ), applied.stderr  # fmt: skip
    assert Path("/etc/systemd/system/model-alpha.service").exists()
    told = recipectl("gateway", "--json")
    facts = json.loads(told.stdout)
    assert (told.returncode, facts["answers"], facts["as_applied"]) == (3, False, False), told
    assert "warning: the gateway does not answer; see `systemctl status" in recipectl("gateway").stderr
    systemctl("stop", "models-gateway")
    assert subprocess.run(["systemctl", "start", "models-gateway"], capture_output=True).returncode == 1
    # One that waits for its next attempt cannot be reloaded; what it is to serve has changed meanwhile.
    subprocess.run(["systemctl", "stop", "stranger"], check=True)
    host_file(names={"fast": "alpha"})
    applied = recipectl("apply")
    assert (applied.returncode, systemctl("is-active", "models-gateway")) == (0, "active"), applied.stderr


@pytest.mark.usefixtures("haproxy")
def test_a_unit_that_shows_the_gateway_an_earlier_address_is_told_and_mended() -> None:
    two_models()
    host_file()
    assert recipectl("apply").returncode == 0
    unit, name = UNITS / "model-alpha-reachable.service", "model-alpha-reachable.service"
    text = unit.read_text()
    unit.write_text(text.replace(":18201/", ":18209/"))
    systemctl("daemon-reload")
    systemctl("restart", name)
    unit.write_text(text)
    systemctl("daemon-reload")
    assert_unreachable("alpha")
    told = recipectl("doctor")
    assert (told.returncode, f"{name} shows the gateway an earlier address" in told.stdout + told.stderr) == (
        3,
        True,
    ), told
    mended = recipectl("apply", "--no-restart")
    assert (mended.returncode, mended.stdout) == (
        0, f"restarting {name}: it shows the gateway an earlier address\n"
    ), mended  # fmt: skip
    until("alpha-reachable", "ActiveState", "active")
    assert ask("alpha")[0] == 200
    recipe("alpha", port=18203, queue={"engine_port": 18201}, autostart=True, served_model_name="org/alpha")
    moved = recipectl("apply")
    assert f"stopped {name}: it shows the gateway an earlier address" in moved.stdout, moved
    assert recipectl("wait", "alpha").returncode == 0
    assert ask("alpha")[0] == 200
    assert recipectl("apply").stdout == ""


def test_a_gateway_that_the_host_file_no_longer_has_goes_on_under_no_restart() -> None:
    two_models()
    host_file()
    assert recipectl("apply").returncode == 0
    HOST_FILE.unlink()
    left = recipectl("apply", "--no-restart")
    assert (left.returncode, "left for later: models-gateway.service must be removed" in left.stderr) == (
        0,
        True,
    ), left
    assert (ask("alpha")[0], ask("beta")[0]) == (200, 200)
    assert recipectl("apply").returncode == 0
    assert not (UNITS / "models-gateway.service").exists()
    assert not (UNITS / "model-alpha-reachable.service").exists()


def test_applies_between_two_crashes_change_nothing() -> None:
    host_file()
    recipe("alpha", port=18201, autostart=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    systemctl("kill", "--signal=KILL", "model-alpha.service")
    until("alpha", "SubState", "auto-restart")
    applies = [recipectl("apply", "--no-restart") for _ in range(6)]
    assert {(each.returncode, each.stdout, each.stderr) for each in applies} == {(0, "", "")}, applies
    until("alpha", "ActiveState", "active")
    assert ask("alpha")[0] == 200


def test_what_needs_a_restart_of_the_gateway_waits_for_one() -> None:
    two_models()
    host_file()
    assert recipectl("apply").returncode == 0
    private(KEYS, "anna a-key-of-anna-for-this-test\n")
    host_file(keys=str(KEYS))
    applied = recipectl("apply", "--no-restart")
    assert (applied.returncode, applied.stdout, applied.stderr) == (
        0, "", "left for later: models-gateway.service must be restarted: its unit changed; "
        "new requests are refused until those that run have ended, a minute at most\n"
    ), applied  # fmt: skip
    assert json.loads(recipectl("diff", "--json", "--no-restart").stdout)["left"][0]["verb"] == "restart"
    assert ask("alpha")[0] == 200
    assert recipectl("apply").returncode == 0
    assert ask("alpha")[0] == 401
    time.sleep(1.1)  # a change within the second of the start cannot be told
    private(KEYS, "otto a-key-of-otto-for-this-test\n")
    assert "must be restarted: a file of its keys" in recipectl("apply", "--no-restart").stderr
    told = recipectl("gateway")
    assert (told.returncode, told.stderr) == (
        3, f"warning: {KEYS}: it was changed after the gateway had read it; run `recipectl apply`\n"
    ), told  # fmt: skip
    assert json.loads(recipectl("gateway", "--json").stdout)["as_applied"] is False
    KEYS.rename("/root/away")
    told = recipectl("gateway")
    assert (told.returncode, f"warning: {KEYS}: it is gone, and the gateway cannot" in told.stderr) == (
        3,
        True,
    ), told
    Path("/root/away").rename(KEYS)
    assert recipectl("apply").returncode == 0
    assert recipectl("gateway").returncode == 0
    assert ask("alpha", headers={"Authorization": "Bearer a-key-of-otto-for-this-test"})[0] == 200


def test_a_gateway_in_force_stays_where_another_could_not_start() -> None:
    two_models()
    host_file()
    assert recipectl("apply").returncode == 0
    words = ["systemd-run", "-q", "--unit=stranger", "/usr/bin/python3", "-m", "http.server", "8099"]
    subprocess.run([*words, "--bind", "127.0.0.1"], check=True)
    until_listening(8099)
    host_file(listen="127.0.0.1:8099")
    applied = recipectl("apply")
    doctor = recipectl("doctor").stdout
    subprocess.run(["systemctl", "stop", "stranger"], check=True)
    sentence = "127.0.0.1:8099 of `gateway.listen` is taken by process"
    assert (applied.returncode, sentence in applied.stderr, sentence in doctor) == (1, True, True), (
        applied.stderr
    )
    assert ask("beta")[0] == 200  # and its engine has a port of its own now
    host_file(listen="127.0.0.1:8202")
    applied = recipectl("apply")
    assert (
        applied.returncode,
        "the engine of `beta` listens at that port; choose another" in applied.stderr,
    ) == (
        2,
        True,
    ), applied
    Path("/tmp/of-site.conf").write_text("add_header X-Site yes;\n")
    host_file(include="/tmp/of-site.conf")
    applied = recipectl("apply")
    assert (applied.returncode, "that the gateway's sandbox does not have; move it" in applied.stderr) == (
        2,
        True,
    ), applied
    systemctl("restart", "models-gateway.service")
    until_listening(8000)
    assert ask("alpha")[0] == 200
    # What somebody edits by hand and reloads is put back, and reloaded.
    host_file(listen="[::]:8000")
    assert recipectl("apply").returncode == 0
    assert ask("alpha")[0] == 200  # at an address of IPv4
    file = Path("/etc/recipectl/gateway/nginx.conf")
    file.write_text(file.read_text().replace("[::]:8000", "[::]:8009"))
    systemctl("reload", "models-gateway.service")
    until_listening(8009)
    applied = recipectl("apply")
    assert "nginx.conf: it was edited by hand" in applied.stdout
    until_listening(8000)
    assert ask("alpha")[0] == 200


def test_a_gateway_that_cannot_restart_serves_again_as_it_was() -> None:
    folder, drop_in = Path("/srv/of-site"), Path("/etc/systemd/system/models-gateway.service.d/site.conf")
    for path in (folder, drop_in.parent):
        path.mkdir(parents=True, exist_ok=True)
    (folder / "headers.conf").write_text("add_header X-Site yes;\n")
    drop_in.write_text("[Service]\nInaccessiblePaths=/srv/of-site\n")
    recipe("alpha", port=18201, autostart=True)
    host_file()
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    words = ["systemd-run", "-q", "--unit=stranger", "/usr/bin/python3", "-m", "http.server", "8000"]
    subprocess.run([*words, "--bind", "127.0.0.2"], check=True)
    end = time.monotonic() + 60
    while subprocess.run(["curl", "-so/dev/null", "http://127.0.0.2:8000/"], check=False).returncode:
        assert time.monotonic() < end
    # It is in the way of 0.0.0.0, and not of what is in force.
    host_file(listen="0.0.0.0:8000")
    applied = recipectl("apply")
    assert (applied.returncode, "0.0.0.0:8000 of `gateway.listen` is taken by process" in applied.stderr) == (
        1,
        True,
    ), applied
    host_file(names={"fast": "alpha"})
    assert recipectl("apply").returncode == 0
    assert ask("fast")[0] == 200
    subprocess.run(["systemctl", "stop", "stranger"], check=True)
    host_file(listen="0.0.0.0:8000")
    assert recipectl("apply").returncode == 0
    assert ask("alpha")[0] == 200
    # nginx refuses what its own test lets pass: the drop-in closes this folder to the unit.
    site = Path("/etc/recipectl/of-site.conf")
    site.write_text("include /srv/of-site/headers.conf;\n")
    for settings in ({"listen": "0.0.0.0:8000"}, {"listen": "127.0.0.1:8000"}):
        host_file(**settings, include=str(site))
        applied = recipectl("apply")
        told = ["it goes on with its earlier configuration", 'open() "/srv/of-site/headers.conf" failed']
        assert (applied.returncode, [part for part in told if part not in applied.stderr]) == (1, []), applied
        until_listening(8000)
        assert ask("alpha")[0] == 200
    site.unlink()
    drop_in.unlink()
    systemctl("daemon-reload")


def test_an_apply_ends_once_every_worker_has_the_new_configuration() -> None:
    host_file()
    two_models()
    children = Path(f"/proc/{show_gateway('MainPID')}/task/{show_gateway('MainPID')}/children")
    worker = int(children.read_text().split()[0])
    os.kill(worker, signal.SIGSTOP)  # it is as late as on a machine under load
    host_file(names={"new": "alpha"})
    with subprocess.Popen(
        [sys.executable, "-m", "recipectl", "apply"], stdout=subprocess.PIPE, text=True
    ) as apply:
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                apply.wait(8)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert "reloaded models-gateway.service" in apply.communicate()[0]
    assert apply.returncode == 0
    assert all("new" in models() for _ in range(20))


@pytest.mark.usefixtures("haproxy")
def test_a_recipe_that_is_not_applied_leads_where_its_model_runs() -> None:
    host_file()
    two_models()
    recipe("queued", port=18204, autostart=True, queue=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha", "queued").returncode == 0
    assert recipectl("apply").stdout == ""
    # The recipes change, and are not applied: to another's port, to other names.
    recipe("alpha", port=18301, autostart=True, served_model_name="new")
    recipe("queued", port=18304, autostart=True, queue=True)
    recipe("beta", port=18202, on_demand={"idle": "20min"})
    with socket.create_server(("127.0.0.1", 18301)) as stranger:
        stranger.settimeout(0.2)
        for words in (("apply", "beta"), ("apply", "--no-restart")):
            assert recipectl(*words).returncode == 0
            for name in ("org/alpha", "alpha", "queued"):
                assert ask(name)[0] == 200, (words, name)
            assert re.search(r"^gateway +ok$", recipectl("doctor").stdout, re.M)
            with pytest.raises(TimeoutError):
                stranger.accept()
    left = recipectl("apply", "--no-restart").stderr
    assert "left for later: model-alpha.service must be restarted" in left
    # A recipe that is renamed, while its model runs.
    file = next(Path("/etc/recipectl/recipes").glob("alpha.*"))
    file.rename(file.with_stem("omega"))
    assert recipectl("apply", "--no-restart").returncode == 0
    assert ask("alpha")[0] == 200
    assert recipectl("remove", "beta").returncode == 0
    assert ask("alpha")[0] == 200
    # An on-demand recipe that is gone, while its model sleeps, needs no restart of anything.
    recipe("beta", port=18202, on_demand={"idle": "10min"})
    assert recipectl("apply", "beta").returncode == 0
    next(Path("/etc/recipectl/recipes").glob("beta.*")).unlink()
    assert "removed model-beta.socket" in recipectl("apply", "--no-restart").stdout


@pytest.mark.usefixtures("haproxy")
def test_a_model_that_could_not_be_removed_is_still_reached() -> None:
    host_file()
    recipe("alpha", port=18201, autostart=True, queue=True)
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "alpha").returncode == 0
    next(Path("/etc/recipectl/recipes").glob("alpha.*")).unlink()
    body = json.dumps({"prompt": "a", "max_tokens": 4000, "stream": True, "ignore_eos": True}).encode()
    pool = concurrent.futures.ThreadPoolExecutor()
    with pool, urllib.request.urlopen("http://127.0.0.1:18201/v1/completions", body, timeout=300) as stream:
        stream.readline()
        applying = pool.submit(recipectl, "apply")
        until("alpha-queue-open", "ActiveState", "deactivating")
        systemctl("start", "--no-block", "model-alpha.service")
        assert applying.result().returncode == 1
    assert recipectl("wait", "alpha").returncode == 0
    assert ask("alpha")[0] == 200
    assert recipectl("apply").returncode == 0
    assert ask("alpha")[0] == 404


def test_the_sites_files_beside_the_gateways_are_left_alone() -> None:
    folder = Path("/etc/recipectl/gateway")
    folder.mkdir(parents=True, exist_ok=True)
    private(folder / "keys", "ann sk-ann\n")
    (folder / "NOTES").write_text("mine")
    host_file(keys=str(folder / "keys"))
    recipe("alpha", port=18201)
    assert recipectl("apply").returncode == 0
    HOST_FILE.unlink()
    assert recipectl("apply").returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["NOTES", "keys"]
    assert (folder / "keys").stat().st_mode & 0o777 == 0o600
    for name in ("NOTES", "keys"):
        (folder / name).unlink()
    host_file()
    assert recipectl("apply").returncode == 0
    HOST_FILE.unlink()
    assert recipectl("apply").returncode == 0
    assert not folder.exists()


def test_what_is_wrong_with_a_gateway_that_does_not_run() -> None:
    host_file(listen="127.0.0.1:8202")
    recipe("beta", port=18202, on_demand={"idle": "10min"})
    applied = recipectl("apply")
    assert (applied.returncode, "8202" in applied.stderr) == (2, True), applied
    host_file()
    assert recipectl("apply").returncode == 0
    host_file(listen="127.0.0.1:8202")
    applied = recipectl("apply")
    assert (applied.returncode, "`beta` listens at that port; choose another" in applied.stderr) == (
        2,
        True,
    ), applied
    assert models() == {"beta": "asleep"} | models()
    systemctl("stop", "model-beta.socket")
    assert models()["beta"] == "down"
    host_file(keys="/dev/null")
    assert "/dev/null is no regular file; correct `keys:`" in recipectl("apply").stderr
    host_file(include="/etc")
    assert "/etc is no regular file; correct `include:`" in recipectl("apply").stderr
    systemctl("disable", "--now", "models-gateway.service")
    host_file()
    told = recipectl("doctor").stdout
    assert "run `systemctl enable --now models-gateway`, or remove `gateway:`" in told
    Path("/etc/recipectl/site.conf").write_text("nonsense;\n")
    host_file(include="/etc/recipectl/site.conf")
    assert "correct `gateway:`, no gateway runs until then" in recipectl("apply").stderr


@pytest.mark.usefixtures("haproxy")
def test_ports_that_move_in_a_circle_are_moved_by_one_apply() -> None:
    for ports in ((18301, 18302, 18303, 18304), (18302, 18303, 18304, 18301)):
        host_file(listen=f"127.0.0.1:{ports[0]}")
        recipe("alpha", port=ports[1], autostart=True, queue=True)
        recipe("beta", port=ports[2], autostart=True, queue=True)
        recipe("gamma", port=ports[3], on_demand={"idle": "10min"})
        applied = recipectl("apply")
        assert applied.returncode == 0, applied.stderr
        assert recipectl("wait", "alpha", "beta").returncode == 0
    assert recipectl("apply").stdout == ""
    for name in ("alpha", "beta", "gamma"):
        body = json.dumps({"model": name, "prompt": "Once", "max_tokens": 1}).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request("http://127.0.0.1:18302/v1/completions", body, headers)
        with urllib.request.urlopen(request, timeout=100) as answer:
            assert answer.status == 200


def test_a_masked_gateway_stops_no_model() -> None:
    host_file()
    systemctl("mask", "models-gateway.service")
    recipe("alpha", port=18201)
    applied = recipectl("apply")
    systemctl("unmask", "models-gateway.service")
    sentence = "models-gateway.service is masked; run `systemctl unmask models-gateway.service`"
    assert (applied.returncode, sentence in applied.stderr) == (1, True), applied
    assert Path("/etc/systemd/system/model-alpha.service").exists()


def test_a_model_and_the_gateway_do_not_take_each_others_port() -> None:
    host_file()
    recipe("alpha", port=18201)
    assert recipectl("apply").returncode == 0
    recipe("mine", port=8000)
    mine = next(Path("/etc/recipectl/recipes").glob("mine.*"))
    applied = recipectl("apply")
    assert (applied.returncode, f"{mine}:" in applied.stderr, "where the gateway" in applied.stderr) == (
        2,
        True,
        True,
    )
    assert not Path("/etc/systemd/system/model-mine.service").exists()
    mine.unlink()
    host_file(listen="127.0.0.1:18201")
    applied = recipectl("apply")
    assert (applied.returncode, "`alpha` listens at that port; choose another" in applied.stderr) == (
        2,
        True,
    ), applied.stderr
    assert urllib.request.urlopen(f"{ADDRESS}/v1/models").status == 200


SPOKEN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def say(self, body):
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_GET(self):
        if self.headers.get("Upgrade") != "websocket":
            return self.say(b"ok")
        self.send_response(101); self.send_header("Upgrade", "websocket"); self.send_header("Connection", "Upgrade"); self.end_headers()
        while frame := self.rfile.read1(100):
            self.wfile.write(frame); self.wfile.flush()
    def do_POST(self):
        length = int(self.headers["Content-Length"])
        self.say(f"{self.path} {self.headers['Content-Type']} {self.rfile.read(length)[:20]}".encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_forms_and_websockets_go_by_their_path() -> None:
    """A stand-in: no engine here has a WebSocket."""
    recipe("spoken", port=18204, binary=script(Path("/opt/spoken"), SPOKEN), autostart=True)
    host_file()
    assert recipectl("apply").returncode == 0
    assert recipectl("wait", "spoken").returncode == 0
    form = urllib.request.Request(
        f"{ADDRESS}/spoken/v1/audio/transcriptions",
        b"--x\r\nsound",
        {"Content-Type": "multipart/form-data; boundary=x"},
    )
    with urllib.request.urlopen(form, timeout=20) as answer:
        assert (
            answer.read().decode()
            == "/v1/audio/transcriptions multipart/form-data; boundary=x b'--x\\r\\nsound'"
        )
    with socket.create_connection(("127.0.0.1", 8000), timeout=20) as connection:
        head = "GET /spoken/v1/realtime HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        connection.sendall(f"{head}Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 101 ")
        for frame in (b"\x81\x03one", b"\x81\x03two"):
            connection.sendall(frame)
            assert connection.recv(100) == frame


def show_gateway(field: str) -> str:
    return systemctl("show", "-P", field, "models-gateway.service")


def test_a_large_body_with_the_model_last() -> None:
    host_file()
    two_models()
    status, answer = ask("alpha", user="x" * 20_000_000)
    assert (status, answer["model"]) == (200, "org/alpha")
    status, answer = ask("alpha", user="x" * 60_000_000)
    assert (status, answer["error"]["code"]) == (413, "too_large")  # type: ignore[index]
    # Of a body with very many values it is not known which `model` is the right one.
    keys = {f"k{number}": number for number in range(50_000)}
    status, answer = ask("alpha", metadata={"model": "beta"}, **keys)  # type: ignore[arg-type]
    assert (status, answer["model"]) == (200, "org/alpha")
    for further in ({"many": [[]] * 600_000}, {"é": [0] * 600_000}):
        status, answer = ask("alpha", **further)  # type: ignore[arg-type]
        assert (status, answer["model"]) == (200, "org/alpha")
        status, answer = ask("alpha", metadata={"model": "beta"}, **further)  # type: ignore[arg-type]
        assert (status, answer["error"]["code"]) == (413, "too_large")  # type: ignore[index]
    prose = {"user": 'He said: \\"yes", and left; [1, 2], ' * 20_000, "metadata": {"model": "beta"}}
    status, answer = ask("alpha", **prose)  # type: ignore[arg-type]
    assert (status, answer["model"]) == (200, "org/alpha")


def test_requests_in_flight_live_through_reloads_and_a_wrong_file_changes_nothing() -> None:
    host_file()
    two_models()
    before = show_gateway("MainPID")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, "alpha") for _ in range(200)]
        for name in ("one", "two", "three"):
            host_file(names={name: "alpha"})
            applied = recipectl("apply")
            assert applied.stdout.splitlines()[-1].startswith("reloaded models-gateway.service")
        assert {answer.result()[0] for answer in answers} == {200}
    assert (show_gateway("MainPID"), "three" in models()) == (before, True)
    site = Path("/etc/recipectl/site.conf")
    site.write_text("nonsense on;\n")
    host_file(include=str(site), names={"four": "alpha"})
    wrong = recipectl("apply")
    assert (wrong.returncode, "nginx refuses" in wrong.stderr, "nonsense" in wrong.stderr) == (2, True, True)
    assert (ask("three")[0], ask("four")[0]) == (200, 404)


def test_a_gateway_converges_is_sandboxed_and_goes() -> None:
    host_file()
    two_models()
    assert recipectl("apply").stdout == ""
    nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        sys.executable,
        "-m",
        "recipectl",
    ]
    seen = subprocess.run([*nobody, "doctor", "--json"], capture_output=True, text=True)
    problems = {row["check"]: row["problems"] for row in json.loads(seen.stdout)}["gateway"]
    assert problems == [], str(problems) + seen.stderr
    assert Path("/run/models-gateway/keys.json").stat().st_mode & 0o777 == 0o600
    systemctl("disable", "models-gateway.service")
    host_file(names={"other": "alpha"})
    assert "reloaded models-gateway.service" in recipectl("apply").stdout
    assert "other" in models()
    told = recipectl("gateway")
    assert (told.returncode, told.stdout.startswith(ADDRESS + "/v1")) == (0, True)
    for _ in range(5):  # a start has ended once nginx answers
        systemctl("restart", "models-gateway")
        assert "other" in models()
    exposure = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "models-gateway.service"],
        capture_output=True,
        text=True,
    ).stdout
    assert float(exposure.rpartition("models-gateway.service: ")[2].split()[0]) <= 2.5
    HOST_FILE.unlink()
    assert "run `recipectl apply` without names, which ends it" in recipectl("apply", "alpha").stderr
    sentence = "models-gateway.service is there, and the host file has no `gateway:`; run `recipectl apply`"
    assert sentence in recipectl("doctor").stdout
    assert sentence in recipectl("gateway").stderr
    assert "removed models-gateway.service" in recipectl("apply").stdout
    assert (show_gateway("LoadState"), list(Path("/etc/recipectl/gateway").glob("*"))) == ("not-found", [])
    assert show("alpha", "ActiveState") == "active"
