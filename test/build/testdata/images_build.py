"""What a program does with docker-py's images.build, asserted step by step."""

import gzip
import io
import os
import tarfile
import tempfile

import docker
from docker.errors import APIError, BuildError, DockerException

c = docker.from_env()


def build(**kw):
    image, logs = c.images.build(**kw)
    return image, "".join(line.get("stream", "") for line in logs)


def said(image, *args):
    return c.containers.run(image, list(args), remove=True)


def tree(files):
    """A context on disk."""
    d = tempfile.mkdtemp()
    for name, text in files.items():
        os.makedirs(os.path.join(d, os.path.dirname(name)), exist_ok=True)
        with open(os.path.join(d, name), "w") as f:
            f.write(text)
    return d


def tar(files):
    """A context as a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            t.addfile(info, io.BytesIO(text.encode()))
    out.seek(0)
    return out


files = {
    "Dockerfile": "FROM busybox AS first\nARG WORD=none\nCOPY . /src\nRUN echo first $WORD > /word\nFROM first AS second\nRUN echo second >> /word\nCMD [\"cat\", \"/word\"]\n",
    ".dockerignore": "*.log\n!keep.log\n",
    "a": "a\n",
    "drop.log": "x\n",
    "keep.log": "y\n",
    "other/Dockerfile": "FROM busybox\nRUN echo other > /word\n",
}
path = tree(files)

# A directory, with a tag and without one; .dockerignore holds.
image, text = build(path=path, tag="pybuild:tagged", rm=True, buildargs={"WORD": "said"})
assert image.tags == ["pybuild:tagged"], image.tags
assert said(image) == b"first said\nsecond\n"
assert said(image, "ls", "-A", "/src") == b".dockerignore\nDockerfile\na\nkeep.log\nother\n"
assert "Successfully built " + image.short_id.split(":")[1] in text and "Successfully tagged pybuild:tagged" in text, text
image2, text = build(path=path, rm=True, forcerm=True, buildargs={"WORD": "said"})
assert image2.id == image.id and text.count("Using cache") == 5, text
assert image2.tag("pybuild", "second")
image2.reload()
assert sorted(image2.tags) == ["pybuild:second", "pybuild:tagged"], image2.tags
untagged, _ = build(path=path, buildargs={"WORD": "nameless"})
assert untagged.tags == [] and said(untagged) == b"first nameless\nsecond\n", untagged.tags
assert untagged.id in [i.id for i in c.images.list(filters={"dangling": True})]

# The cache is not used when it is not to be; what it comes from may be named.
_, text = build(path=path, nocache=True, buildargs={"WORD": "said"})
assert "Using cache" not in text, text
build(path=path, cache_from=["pybuild:tagged"], buildargs={"WORD": "said"})

# Stages, Dockerfiles with another name and outside of the context.
first, _ = build(path=path, target="first", labels={"made": "by py"})
assert said(first, "cat", "/word") == b"first none\n" and first.labels == {"made": "by py"}, first.labels
other, _ = build(path=path, dockerfile="other/Dockerfile")
assert said(other, "cat", "/word") == b"other\n"
outside = tree({"D": "FROM busybox\nCOPY a /word\n"})
image, _ = build(path=path, dockerfile=os.path.join(outside, "D"))
assert said(image, "cat", "/word") == b"a\n"

# A Dockerfile alone; a context of one's own, plain and compressed.
image, _ = build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo alone > /word\n"), pull=False)
assert said(image, "cat", "/word") == b"alone\n"
small = {"Dockerfile": "FROM busybox\nCOPY f /word\n", "f": "mine\n", "D2": "FROM busybox\nRUN echo two > /word\n"}
image, _ = build(fileobj=tar(small), custom_context=True)
assert said(image, "cat", "/word") == b"mine\n"
image, _ = build(fileobj=tar(small), custom_context=True, dockerfile="D2")
assert said(image, "cat", "/word") == b"two\n"
image, _ = build(fileobj=io.BytesIO(gzip.compress(tar(small).read())), custom_context=True, encoding="gzip")
assert said(image, "cat", "/word") == b"mine\n"
image, _ = build(path=path, gzip=True, target="first")
assert said(image, "cat", "/word") == b"first none\n"

# Options of the steps' containers.
image, text = build(
    fileobj=io.BytesIO(b"FROM busybox\nRUN cat /etc/hosts; df -k /dev/shm; ls /sys/class/net\n"),
    network_mode="none", extra_hosts={"known": "192.0.2.7"}, shmsize=8 << 20, container_limits={"memory": 64 << 20}, nocache=True, platform="linux/amd64",
)
assert "192.0.2.7\tknown" in text and " 8192 " in text and "eth0" not in text, text

# The stream itself, decoded and not.
lines = list(c.api.build(path=path, decode=True, tag="pybuild:raw"))
assert any("aux" in line and line["aux"]["ID"].startswith("sha256:") for line in lines), lines
assert b"".join(c.api.build(path=path, quiet=True)).startswith(b'{"stream":"sha256:')

# Errors keep their class and their log.
try:
    build(fileobj=io.BytesIO(b"FROM busybox\nRUN echo before; exit 9\n"))
    raise SystemExit("no BuildError")
except BuildError as e:
    assert "returned a non-zero code: 9" in e.msg, e.msg
    assert any("before" in line.get("stream", "") for line in e.build_log)
try:
    build(path=path, target="nosuch")
    raise SystemExit("no error")
except (BuildError, APIError) as e:
    assert "nosuch" in str(e), e
try:
    build(fileobj=io.BytesIO(b"FROM busybox\nCOPY nosuch /\n"))
    raise SystemExit("no error")
except (BuildError, APIError) as e:
    assert "nosuch" in str(e), e
for bad in ({"tag": "BAD NAME"}, {"dockerfile": "nosuch"}):
    try:
        build(path=path, **bad)
        raise SystemExit(f"no error: {bad}")
    except (DockerException, OSError):
        pass
try:
    build()
    raise SystemExit("no TypeError")
except TypeError:
    pass
pruned = c.api.prune_builds()
assert "SpaceReclaimed" in pruned, pruned
