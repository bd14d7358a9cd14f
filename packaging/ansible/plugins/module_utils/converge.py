# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""Files of /etc/recipectl, and what recipectl makes of them; checked before one of them is written."""

import json
import os
import re
import shutil
import tempfile

FOLDER = "/etc/recipectl"
# In a mount namespace of its own, recipectl sees the files as they would be. Secrets stay in memory.
_STAGE = f"""
mount -t tmpfs -o mode=0755 recipectl "$1"
cp -a {FOLDER}/. "$1/"
cp -rT "$2" "$1"
chown -R 0:0 "$1"
stage=$1
shift 2
while [ "$1" != -- ]; do rm "$stage/$1"; shift; done
shift
mount --bind "$stage" {FOLDER}
exec "$@"
"""


class Converge:
    """recipectl on this host, and the files that it should have."""

    def __init__(self, module):
        self.module = module
        self.program = module.params["executable"] or module.get_bin_path(
            "recipectl", opt_dirs=["/usr/local/bin", "/opt/recipectl/bin"]
        )
        self.result = {"changed": False, "actions": [], "problems": [], "diff": []}

    def require_program(self):
        """Whether recipectl is there. It may come in the same play, which a check does not change."""
        if self.program:
            return True
        if not self.module.check_mode:
            self.module.fail_json(
                msg="recipectl is not on this host; install it with the role recipectl.models.host"
            )
        self.module.warn("recipectl is not installed yet, so it is not known what would change")
        return False

    def run(self, *words):
        """Exit status, standard output and standard error of recipectl; warnings are passed on."""
        return self._run([self.program] + list(words))

    def _run(self, words):
        status, out, err = self.module.run_command(
            words, environ_update={"LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        )
        for line in err.splitlines():
            if line.startswith("warning: "):
                self.module.warn(line.removeprefix("warning: "))
        return status, out, err

    def files(self, wanted, modes=None):
        """Of some files (path below /etc/recipectl -> content, or None for a file that goes) those that differ."""
        differing = {}
        for path, content in wanted.items():
            if not re.match(r"(?!.*(^|/)\.)[^/].*\Z", path):
                self.module.fail_json(msg="%s is no path below %s; correct it" % (path, FOLDER))
            target = os.path.join(FOLDER, path)
            current = read(target)
            mode = (modes or {}).get(path, 0o644)
            if content is None and current is None:
                continue
            same_mode = content is None or current is None or os.stat(target).st_mode & 0o777 == mode
            if content == current and same_mode:
                continue
            differing[path] = content
            if mode == 0o644:
                self.result["diff"].append(
                    {
                        "before_header": target,
                        "after_header": target,
                        "before": current or "",
                        "after": content or "",
                    }
                )
        return differing

    def converge(self, files, modes, *names):
        """Write files and apply the named recipes, or all; in check mode only tell what that would do."""
        if self.module.check_mode or files:
            report = self._preview(files, names)
            if self.module.check_mode:
                self.result["changed"] = bool(files) or bool(report and report["changed"])
                return self.result["changed"]
        self.write(files, modes)
        report = self._report(*self.run("apply", "--json", *names))
        self._note(report)
        self.result["changed"] = bool(files) or report["changed"]
        return self.result["changed"]

    def _preview(self, files, names):
        """What apply would do with the files; the play ends here if they are wrong. None if it cannot be told."""
        words = [self.program, "diff", "--json"] + list(names)
        stage = None
        if files:
            stage = tempfile.mkdtemp(dir=self.module.tmpdir)
            words = self._staged(stage, files, words)
        status, out, err = self._run(words)
        if stage:
            shutil.rmtree(stage)
        if re.match("(unshare|mount|cp|chown|rm): ", err):
            self.module.warn("what would change cannot be told before it does: %s" % err.strip())
            return None
        report = self._report(status, out, err, allowed=(0, 3, 2))
        paths = [os.path.join(FOLDER, path) for path in files]
        faults = [problem for problem in errors(report) if problem["file"] in paths or not problem["file"]]
        if faults:
            self._fail(faults)
        if self.module.check_mode:
            self._note(report)
        return report

    @staticmethod
    def _staged(stage, files, words):
        changes, mount = os.path.join(stage, "changes"), os.path.join(stage, "mount")
        os.mkdir(mount)
        os.mkdir(changes)
        for path, content in files.items():
            if content is not None:
                target = os.path.join(changes, path)
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "w", encoding="utf-8") as file:
                    file.write(content)
                os.chmod(target, 0o600 if path.startswith("secrets/") else 0o644)
        gone = [path for path, content in files.items() if content is None]
        return ["unshare", "--mount", "sh", "-euc", _STAGE, "sh", mount, changes] + gone + ["--"] + words

    def write(self, files, modes):
        """Each file is written whole, or not at all."""
        for path, content in sorted(files.items()):
            target = os.path.join(FOLDER, path)
            if content is None:
                os.unlink(target)
                if target.endswith(".yaml") and os.path.dirname(target).endswith(".yaml.d"):
                    _remove_if_empty(os.path.dirname(target))
                continue
            mode = modes.get(path, 0o644)
            os.makedirs(os.path.dirname(target), mode=0o700 if mode == 0o600 else 0o755, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.module.tmpdir)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(content)
            os.chmod(temporary, mode)
            self.module.atomic_move(temporary, target)
            os.chmod(target, mode)

    def _report(self, status, out, err, allowed=(0,)):
        try:
            report = json.loads(out)
        except ValueError:
            self.module.fail_json(
                msg=last_line(err) or "recipectl has failed with status %s" % status, rc=status
            )
        if status not in allowed:
            self._note(report)
            self._fail(errors(report), last_line(err))
        return report

    def _fail(self, problems, otherwise="recipectl has failed"):
        sentences = [in_words(problem) for problem in problems]
        self.result["problems"] = problems
        self.module.fail_json(msg="\n".join(sentences) or otherwise, **self.result)

    def _note(self, report):
        self.result["actions"] += report["actions"]
        self.result["problems"] += report["problems"]
        for problem in report["problems"]:
            if problem["severity"] == "warning":
                self.module.warn(in_words(problem))
        self.result["diff"] += [{"prepared": text} for text in report["diff"].values()]


def read(path):
    """The content of a file; None if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def errors(report):
    """The problems of a report that are not warnings."""
    return [problem for problem in report["problems"] if problem["severity"] == "error"]


def in_words(problem):
    """A problem as recipectl prints it."""
    place = [str(problem[key]) for key in ("file", "line", "column") if problem[key] is not None]
    return ": ".join([":".join(place)] * bool(place) + [problem["sentence"]])


def last_line(text):
    """The last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _remove_if_empty(folder):
    if not os.listdir(folder):
        os.rmdir(folder)


def arguments(**own):
    """The arguments that all modules have, and those of one."""
    spec = {"executable": {"type": "path"}}
    spec.update(own)
    return spec
