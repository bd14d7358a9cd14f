# Copyright: the makers of recipectl
# Apache License, Version 2.0 (see LICENSE, or https://www.apache.org/licenses/LICENSE-2.0)
"""Files of /etc/recipectl, and what recipectl makes of them; checked before one of them is written."""

import json
import os
import re
import shutil
import tempfile

FOLDER = "/etc/recipectl"
# In a mount namespace of its own, recipectl sees the files as they would be. $1 is where they are put together, $2 has
# those that change; the names up to `--` go. A link is replaced, and what is behind it stays.
_STAGE = """
mount -t tmpfs -o mode=0755 recipectl "$1"
cp -a {folder}/. "$1/"
if [ -L "$1/recipes" ]; then rm "$1/recipes"; cp -a "$(readlink -f {folder}/recipes)" "$1/recipes"; fi
cp -rT --remove-destination "$2" "$1"
stage=$1
shift 2
while [ "$1" != -- ]; do rm "$stage/$1"; shift; done
shift
mount --bind "$stage" {folder}
exec "$@"
""".format(folder=FOLDER)


class Converge:
    """recipectl on this host, and the files that it should have."""

    def __init__(self, module):
        self.module = module
        self.program = module.params["executable"]
        if self.program is None:
            self.program = module.get_bin_path("recipectl", opt_dirs=["/usr/local/bin", "/opt/recipectl/bin"])
        elif not os.access(self.program, os.X_OK):
            self.program = None
        self.result = {"changed": False, "actions": [], "problems": [], "diff": []}

    def require_program(self):
        """Whether recipectl is there. It may come in the same play, which a check does not change."""
        if self.program:
            return True
        place = self.module.params["executable"] or "recipectl"
        if not self.module.check_mode:
            self.fail("%s is not on this host; install it with the role recipectl.models.host" % place)
        self.module.warn("%s is not on this host yet, so it is not known what would change" % place)
        return False

    def fail(self, sentence):
        """End the task with a sentence, and with what was done so far."""
        self.module.fail_json(msg=sentence, **self.result)

    def run(self, *words):
        """Exit status, standard output and standard error of recipectl; warnings are passed on."""
        return self._run([self.program, *words])

    def _run(self, words):
        status, out, err = self.module.run_command(
            words, environ_update={"LC_ALL": "C.UTF-8", "NO_COLOR": "1"}
        )
        for line in err.splitlines():
            if line.startswith("warning: "):
                self.module.warn(line.removeprefix("warning: "))
        return status, out, err

    def wanted(self, content, secrets):
        """The texts of files by their path below /etc/recipectl; None for a file that goes."""
        texts = {}
        for path, value in content.items():
            if path.startswith("secrets/"):
                self.fail("`content` has %s, which everybody could read; give it in `secrets`" % path)
            texts[path] = value
        texts.update(("secrets/" + name, value) for name, value in (secrets or {}).items())
        for path, value in texts.items():
            if not re.match(r"(?!.*(^|/)\.)(?!.*//)[^/].*[^/]\Z", path):
                self.fail("%s is no path below %s; correct it" % (path, FOLDER))
            if isinstance(value, (dict, list)):
                self.fail("%s must be a text; quote it, or write it as a block (`|`)" % path)
            texts[path] = value if value is None else str(value)
        return texts

    def differing(self, texts):
        """Those of some files that are not on the host as they should be, with what differs noted."""
        files = {}
        for path, text in texts.items():
            target = os.path.join(FOLDER, path)
            if os.path.isdir(target):
                self.fail("%s is a folder; remove it, or choose another name" % target)
            there, before = os.path.lexists(target), read(target)
            if (text is None and not there) or (text == before and not _mode_differs(path, target)):
                continue
            files[path] = text
            if is_secret(path):
                self.result["actions"].append(
                    {"verb": "write", "unit": target, "reason": "a secret has changed"}
                )
                continue
            self.result["diff"].append(
                {"before_header": target, "after_header": target, "before": before or "", "after": text or ""}
            )
        return files

    def converge(self, files, *words):
        """Write files and apply, with options and names of recipes; in check mode only tell what that would do."""
        names = [word for word in words if not word.startswith("-")]
        report = None
        if self.module.check_mode or files:
            report = self._preview(files, words, names)
        if self.module.check_mode:
            self.result["changed"] = bool(files) or bool(report and report["changed"])
            return
        before = {path: read(os.path.join(FOLDER, path)) for path in files}
        self.write(files)
        status, out, err = self.run("apply", "--json", *words)
        if status and files and report is None:  # nothing could be checked before
            self.write(before)
        self._note(self._report(status, out, err, allowed=(0,)))

    def _preview(self, files, words, names):
        """What apply would do with the files; the task ends here if they are wrong. None if it cannot be told."""
        if not self.module.check_mode:
            os.makedirs(os.path.join(FOLDER, "recipes"), mode=0o755, exist_ok=True)
        command, stage = [self.program, "diff", "--json", *words], None
        if files:
            stage = tempfile.mkdtemp(dir=self.module.tmpdir)
            command = self._staged(stage, files, command)
        status, out, err = self._run(command)
        if stage:
            shutil.rmtree(stage)
        if re.match("(unshare|mount|cp|rm|sh): ", err):
            self.module.warn("what would change cannot be told before it does: %s" % err.strip())
            return None
        report = self._report(status, out, err, allowed=(0, 2, 3))
        paths = [os.path.join(FOLDER, path) for path in files]
        # Of all recipes, those that were wrong before hinder no other; the task fails at its end.
        everything = self.module.check_mode or names
        faults = [fault for fault in errors(report) if everything or fault["file"] in paths]
        if faults:
            self._fail(faults)
        if self.module.check_mode:
            self._note(report)
        return report

    @staticmethod
    def _staged(stage, files, command):
        changes, mount = os.path.join(stage, "changes"), os.path.join(stage, "mount")
        os.mkdir(mount)
        os.mkdir(changes)
        for path, text in files.items():
            if text is not None:
                _write(changes, path, text)
        gone = [path for path, text in files.items() if text is None]
        return ["unshare", "--mount", "sh", "-euc", _STAGE, "sh", mount, changes, *gone, "--", *command]

    def write(self, files):
        """Each file is written whole, or not at all."""
        for path, text in sorted(files.items()):
            target = os.path.join(FOLDER, path)
            if text is not None:
                _write(FOLDER, path, text)
            elif os.path.lexists(target):
                os.unlink(target)
                folder = os.path.dirname(target)
                if folder.endswith(".d") and not os.listdir(folder):
                    os.rmdir(folder)
            self.result["changed"] = True

    def _report(self, status, out, err, allowed):
        try:
            report = json.loads(out)
        except ValueError:
            self.fail(last_line(err) or "recipectl has failed with status %s" % status)
        if status not in allowed:
            self._note(report)
            self._fail(errors(report), last_line(err) or "recipectl has failed with status %s" % status)
        return report

    def _fail(self, problems, otherwise=""):
        self.result["problems"] = problems
        self.fail("\n".join(in_words(problem) for problem in problems) or otherwise)

    def _note(self, report):
        self.result["changed"] = self.result["changed"] or report["changed"]
        self.result["actions"] += report["actions"]
        self.result["problems"] += report["problems"]
        for problem in report["problems"]:
            if problem["severity"] == "warning":
                self.module.warn(in_words(problem))
        self.result["diff"] += [{"prepared": text} for text in report["diff"].values()]


def is_secret(path):
    """Whether only root may read a file below /etc/recipectl."""
    return path.startswith("secrets/")


def _mode_differs(path, target):
    return is_secret(path) and os.path.exists(target) and os.stat(target).st_mode & 0o777 != 0o600


def _write(base, path, text):
    """Write a file below a folder; a secret is never open to others. An existing file keeps its mode."""
    target = os.path.join(base, path)
    mode = 0o600 if is_secret(path) else 0o644
    if not is_secret(path) and os.path.exists(target):
        mode = os.stat(target).st_mode & 0o777
    before = os.umask(0o077 if is_secret(path) else 0o022)
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(target), prefix=".recipectl-")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    finally:
        os.umask(before)


def read(path):
    """The content of a file; None if there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace", newline="") as file:
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


def arguments(**own):
    """The arguments that all modules have, and those of one."""
    spec = {"executable": {"type": "path"}}
    spec.update(own)
    return spec
