"""What a program does with docker-py, asserted step by step."""

import socket
import threading

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound

client = docker.from_env()


def check(got, want, what):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


# System.
assert client.ping()
check(client.version()["Os"], "linux", "version")
check(client.info()["OSType"], "linux", "info")

# Images.
image = client.images.get("busybox")
assert "busybox:latest" in image.tags, image.tags
assert client.images.list()
try:
    client.images.get("nosuch")
    raise AssertionError("nosuch exists")
except ImageNotFound:
    pass

# Run in the foreground.
check(client.containers.run("busybox", "echo hello", remove=True), b"hello\n", "run")
try:
    client.containers.run("busybox", ["sh", "-c", "echo oops >&2; exit 3"], remove=True)
    raise AssertionError("no ContainerError")
except ContainerError as e:
    check(e.exit_status, 3, "exit status")
    check(e.stderr, b"oops\n", "stderr")

# Create, start, wait, logs.
c = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2; exit 5"], name="py1", labels={"suite": "py", "n": "1"})
check(c.status, "created", "status")
c.start()
check(c.wait()["StatusCode"], 5, "wait")
check(c.logs(stdout=True, stderr=False), b"out\n", "stdout log")
check(c.logs(stdout=False, stderr=True), b"err\n", "stderr log")
c.reload()
check(c.status, "exited", "status after exit")

# Lists with filters.
check([x.name for x in client.containers.list(all=True, filters={"label": ["suite=py", "n"]})], ["py1"], "label filter")
check(client.containers.list(filters={"label": "suite=other"}), [], "other label")
check([x.name for x in client.containers.list(all=True, filters={"status": "exited", "exited": 5})], ["py1"], "exited filter")
c.remove()
try:
    client.containers.get("py1")
    raise AssertionError("py1 is still there")
except NotFound:
    pass

# Detached: exec, top, stats, streams.
c = client.containers.run("busybox", "sleep 300", detach=True, name="py2", mem_limit="64m", environment={"A": "b"}, ports={"80/tcp": ("127.0.0.1", None)})
code, out = c.exec_run(["sh", "-c", "echo $A; exit 4"])
check((code, out), (4, b"b\n"), "exec")
code, out = c.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
check(out, (b"o\n", b"e\n"), "exec demux")
assert any("sleep" in " ".join(p) for p in c.top()["Processes"]), c.top()
stats = c.stats(stream=False)
check(stats["memory_stats"]["limit"], 64 << 20, "memory limit")
c.reload()
assert c.attrs["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"], c.attrs["NetworkSettings"]["Ports"]
assert any(n["IPAddress"] for n in c.attrs["NetworkSettings"]["Networks"].values())

# Interactive exec over the raw socket, half close included.
ex = client.api.exec_create(c.id, "cat", stdin=True)
sock = client.api.exec_start(ex["Id"], socket=True)
raw = getattr(sock, "_sock", sock)
raw.sendall(b"through cat\n")
raw.shutdown(socket.SHUT_WR)
data = b""
while chunk := raw.recv(4096):
    data += chunk
sock.close()
assert data[8:] == b"through cat\n", data
check(client.api.exec_inspect(ex["Id"])["ExitCode"], 0, "exec exit code")

# Attach to a stream.
w = client.containers.create("busybox", ["sh", "-c", "read x; echo got $x"], name="py3", stdin_open=True)
s = w.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
w.start()
raw = getattr(s, "_sock", s)
raw.sendall(b"word\n")
data = b""
while chunk := raw.recv(4096):
    data += chunk
s.close()
assert data[8:] == b"got word\n", data
w.remove()

# Events arrive while things happen.
seen = []
events = client.events(decode=True, filters={"container": "py2"})


def listen():
    for e in events:
        seen.append(e["Action"])
        if e["Action"] == "die":
            return


listener = threading.Thread(target=listen)
listener.start()
c.pause()
c.unpause()
c.rename("py2b")
c.rename("py2")
c.restart(timeout=0)
listener.join(10)
for action in ("pause", "unpause", "kill", "die"):
    assert action in seen, (action, seen)
events.close()
c.kill()
check(c.wait()["StatusCode"], 137, "killed")

# Errors keep their class.
try:
    client.containers.create("busybox", "true", name="py2")
    raise AssertionError("name taken twice")
except APIError as e:
    check(e.status_code, 409, "name clash")
c.remove(force=True, v=True)

# Volumes and networks.
v = client.volumes.create("pyvol", labels={"a": "b"})
check([x.name for x in client.volumes.list(filters={"label": "a=b"})], ["pyvol"], "volume filter")
client.containers.run("busybox", ["sh", "-c", "echo data >/v/f"], volumes={"pyvol": {"bind": "/v", "mode": "rw"}}, remove=True)
check(client.containers.run("busybox", "cat /v/f", volumes={"pyvol": {"bind": "/v", "mode": "ro"}}, remove=True), b"data\n", "volume content")
v.remove()
assert "bridge" in [n.name for n in client.networks.list()]

# Save and load.
tar = b"".join(image.save(named=True))
loaded = client.images.load(tar)
check(loaded[0].id, image.id, "image id after load")
print("docker-py: all steps passed")

# Files: in, out, differences, export, commit.
import io
import tarfile

box = client.containers.create("busybox", ["sh", "-c", "sleep 300"], name="pyfiles")


def pack(name, data):
    buf = io.BytesIO()
    with tarfile.open(fileobj=buf, mode="w") as t:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.gid, info.mode = len(data), 12, 34, 0o640
        t.addfile(info, io.BytesIO(data))
    return buf.getvalue()


for state in ("created", "running"):
    assert box.put_archive("/tmp", pack(state, state.encode()))
    parts, stat = box.get_archive("/tmp/" + state)
    check(stat["name"], state, "stat of " + state)
    check(stat["size"], len(state), "size of " + state)
    with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as t:
        member = t.getmembers()[0]
        check((member.name, member.uid, member.gid, member.mode), (state, 12, 34, 0o640), "member of " + state)
        check(t.extractfile(member).read(), state.encode(), "content of " + state)
    box.start()
try:
    box.get_archive("/none")
    raise AssertionError("/none exists")
except NotFound as e:
    check(e.explanation, "Could not find the file /none in container " + box.id, "text")
check(box.diff(), [{"Path": "/tmp", "Kind": 0}, {"Path": "/tmp/created", "Kind": 1}, {"Path": "/tmp/running", "Kind": 1}], "diff")
with tarfile.open(fileobj=io.BytesIO(b"".join(box.export()))) as t:
    assert "tmp/running" in t.getnames() and ".dockerenv" in t.getnames()
made = box.commit("pymade", "1", message="said", author="me", changes="ENV P=y", conf={"Labels": {"from": "body"}})
made.reload()
check((made.tags, made.labels, made.attrs["Comment"], made.attrs["Author"]), (["pymade:1"], {"from": "body"}, "said", "me"), "commit")
check(client.containers.run("pymade:1", ["sh", "-c", "cat /tmp/running; echo $P"], remove=True), b"runningy\n", "run of a commit")
box.remove(force=True)
client.images.remove("pymade:1")
