"""The desktop host's command line."""

import json
import os
import signal
import subprocess
import sys
import time

import lab


def host(*args, stdin=None):
    """Runs the host to its end and returns (status, what it printed)."""
    done = subprocess.run([lab.HOST, *args], input=stdin, capture_output=True, text=True, timeout=20)
    return done.returncode, done.stdout + done.stderr


def version_is_printed():
    status, text = host("-version")
    assert status == 0 and "VMessKit" in text and "0." in text, text


def bad_usage_is_explained():
    for args in (["-nonsense"], [], ["-config"]):
        status, text = host(*args)
        assert status not in (0, None) and "-config" in text, (args, status, text)
    status, text = host("-config", "/nonexistent/file.json")
    assert status != 0 and "/nonexistent/file.json" in text, text


def test_names_every_fault_with_its_path():
    config = {"outbounds": [{"protocol": "vmess", "settings": {"vnext": [
        {"address": "a.test", "port": 70000, "users": [{"id": "x" * 50, "securty": "auto"}]}]}}, {"protocol": "teleport"}]}
    status, text = host("-test", "-config", "-", stdin=json.dumps(config))
    assert status != 0
    for path in ("outbounds[0].settings.vnext[0].port", "outbounds[0].settings.vnext[0].users[0].id",
                 "outbounds[0].settings.vnext[0].users[0].securty", "outbounds[1].protocol"):
        assert path in text, (path, text)
    assert "security" in text, "the nearest known name"


def test_accepts_a_good_config_with_comments():
    text = """{ // a comment
      "outbounds": [ {"protocol": "freedom"} ] /* another */ }"""
    status, out = host("-test", "-config", "-", stdin=text)
    assert status == 0, out


def broken_json_has_a_line_and_a_column():
    status, out = host("-test", "-config", "-", stdin='{\n  "outbounds": [,]\n}')
    assert status != 0 and "line 2" in out, out


def a_taken_port_fails_the_start():
    scratch = lab.Scratch()
    port = lab.free_port()
    import socket
    with socket.create_server(("127.0.0.1", port)):
        config = {"inbounds": [lab.socks_inbound(port)], "outbounds": [{"protocol": "freedom"}]}
        status, out = host("-config", scratch.json("taken.json", config))
    assert status == 1 and str(port) in out and "in use" in out.lower(), (status, out)


def signals_stop_it_at_any_time():
    scratch = lab.Scratch()
    config = {"inbounds": [lab.socks_inbound(lab.free_port())], "outbounds": [{"protocol": "freedom"}]}
    path = scratch.json("signals.json", config)
    for number in (signal.SIGINT, signal.SIGTERM):
        for delay in (0.05, 0.1, 0.5):
            child = lab.spawn([lab.HOST, "-config", path])
            time.sleep(delay)
            assert lab.end(child, number) == 0, (number, delay)


def processes_of_session(leader):
    """The processes of a session that are still there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                state, _parent, _group, session = f.read().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(pid)
    return found


def an_interrupted_demo_leaves_nothing():
    """Whatever ends the demo, and whenever: no process, hence no namespace and no device, and no file."""
    scratch = lab.Scratch()
    demo = os.path.join(lab.ROOT, "tests", "common", "demo.py")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for delay in (0.3, 0.8, 2):
            env = {**os.environ, "TMPDIR": scratch.path}
            child = lab.spawn([sys.executable, demo, "--mib", "16"], env=env, start_new_session=True)
            time.sleep(delay)
            status = lab.end(child, number)
            assert status in (128 + number, -number), (number, delay, status)
            lab.wait_for("its processes to go", lambda: not processes_of_session(child.pid), 3)
            assert os.listdir(scratch.path) == [], (number, delay, os.listdir(scratch.path))


CASES = [version_is_printed, bad_usage_is_explained, test_names_every_fault_with_its_path, test_accepts_a_good_config_with_comments,
         broken_json_has_a_line_and_a_column, a_taken_port_fails_the_start, signals_stop_it_at_any_time,
         an_interrupted_demo_leaves_nothing]
