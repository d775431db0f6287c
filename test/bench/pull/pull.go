// Package pull measures how images get in and out: a load, a pull from a registry
// on loopback, and a save of 1 GB in 8 layers, packed with gzip and with zstd.
// Each is done by turns by Gantry, by Debian's docker.io, by skopeo (into a store
// of its own, unpacked), and by the least that it can cost: `gzip -d | tar -x` or
// `zstd -d | tar -x` of the layers, as many at once as there are processors, to
// disk.
//
// It is a test, since it needs what tests need; it runs alone, when asked:
//
//	GANTRY_FIGURES=1 GANTRY_BIN=$PWD/bin go test -v -timeout 30m ./test/bench/pull
//
// It writes below the directory for temporary files, 6 GB at most.
package pull
