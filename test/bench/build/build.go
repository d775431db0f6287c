// Package build measures builds: by turns those of Gantry, those of Debian's
// docker.io 20.10 as it builds by default, and those of the BuildKit within that
// (DOCKER_BUILDKIT=1). Twenty RUN steps are built cold and once more without a
// change; a context of 10,000 files is sent again; of Gantry's, the time of the
// export and what it writes are read off as well, and which steps were built.
//
// It is a test, since it needs what tests need; it runs alone, when asked:
//
//	GANTRY_FIGURES=1 GANTRY_BIN=$PWD/bin go test -v -timeout 30m ./test/bench/build
//
// It writes below the directory for temporary files, 1 GB at most.
package build
