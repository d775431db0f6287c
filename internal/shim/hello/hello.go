// Package hello holds what the embedded image "hello" says. cmd/gantry-shim,
// which is also that image's only file, prints it. It does nothing else.
package hello

// Text greets somebody who has run their first container.
const Text = `
Hello from Gantry. This machine can run containers.

What has just happened:
  1. The gantry command asked the daemon, gantryd, to run the image "hello".
  2. The daemon made a container of it: a writable layer over the image's files,
     and a process supervisor, gantry-shim, that belongs to this container alone.
  3. The supervisor started this program in its own namespaces and control group,
     and passed on to you what it has printed.

What to try next:
  gantry load -i image.tar          load an image
  gantry run --rm -it IMAGE sh      a shell in a container of it
  gantry --help                     everything else
`
