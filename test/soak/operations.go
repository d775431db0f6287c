package soak

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
)

// There are fewer names than clients, so that they meet.
const (
	containers = 16
	networks   = 3
	volumes    = 4
	images     = 3
)

func (w *worker) container() string { return fmt.Sprintf("soak-c%d", w.rand.IntN(containers)) }
func (w *worker) network() string   { return fmt.Sprintf("soak-n%d", w.rand.IntN(networks)) }
func (w *worker) volume() string    { return fmt.Sprintf("soak-v%d", w.rand.IntN(volumes)) }
func (w *worker) image() string     { return fmt.Sprintf("soak-i%d", w.rand.IntN(images)) }

// pick returns one of its arguments.
func pick[T any](w *worker, of ...T) T { return of[w.rand.IntN(len(of))] }

// on is an operation on a random container.
func on(name string, weight int, method, format string) operation {
	return operation{name, weight, func(ctx context.Context, w *worker) (int, string, error) {
		return w.call(ctx, method, fmt.Sprintf(format, w.container()), nil)
	}}
}

// get is a question about everything.
func get(name string, weight int, path string) operation {
	return operation{name, weight, func(ctx context.Context, w *worker) (int, string, error) {
		return w.call(ctx, http.MethodGet, path, nil)
	}}
}

type object = map[string]any

// operations are what clients do.
func operations() []operation {
	return []operation{
		{"create", 14, create},
		on("start", 16, "POST", "/containers/%s/start"),
		on("stop", 4, "POST", "/containers/%s/stop?t=1"),
		on("restart", 3, "POST", "/containers/%s/restart?t=0"),
		on("kill", 4, "POST", "/containers/%s/kill"),
		on("hup", 1, "POST", "/containers/%s/kill?signal=HUP"),
		on("pause", 3, "POST", "/containers/%s/pause"),
		on("unpause", 4, "POST", "/containers/%s/unpause"),
		on("remove", 3, "DELETE", "/containers/%s"),
		on("force remove", 7, "DELETE", "/containers/%s?force=1&v=1"),
		on("inspect", 6, "GET", "/containers/%s/json?size=1"),
		on("logs", 4, "GET", "/containers/%s/logs?stdout=1&stderr=1&tail=20"),
		on("top", 2, "GET", "/containers/%s/top"),
		on("stats", 2, "GET", "/containers/%s/stats?stream=0&one-shot=1"),
		on("changes", 1, "GET", "/containers/%s/changes"),
		on("export", 1, "GET", "/containers/%s/export"),
		on("copy out", 2, "GET", "/containers/%s/archive?path=/etc"),
		{"copy in", 2, copyIn},
		{"exec", 8, execute},
		{"update", 2, update},
		{"rename", 1, rename},
		{"wait", 2, wait},
		{"commit", 1, commit},
		{"connect", 3, connect("connect")},
		{"disconnect", 3, connect("disconnect")},
		{"network create", 2, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "POST", "/networks/create", object{"Name": w.network()})
		}},
		{"network remove", 2, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "DELETE", "/networks/"+w.network(), nil)
		}},
		{"volume create", 2, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "POST", "/volumes/create", object{"Name": w.volume()})
		}},
		{"volume remove", 2, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "DELETE", "/volumes/"+w.volume(), nil)
		}},
		{"tag", 1, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "POST", "/images/busybox/tag?repo="+w.image(), nil)
		}},
		{"image remove", 1, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "DELETE", "/images/"+w.image(), nil)
		}},
		get("ps", 8, "/containers/json?all=1"),
		get("images", 2, "/images/json?shared-size=1"),
		get("networks", 2, "/networks"),
		get("volumes", 2, "/volumes"),
		get("info", 2, "/info"),
		get("df", 1, "/system/df"),
		get("events", 1, "/events?since=1&until=2"),
		{"prune", 1, func(ctx context.Context, w *worker) (int, string, error) {
			return w.call(ctx, "POST", pick(w, "/volumes/prune", "/networks/prune", "/images/prune", "/containers/prune"), nil)
		}},
	}
}

// create makes a container of one of the kinds that differ in what they hold.
func create(ctx context.Context, w *worker) (int, string, error) {
	host := object{
		"NetworkMode":   pick(w, "bridge", "bridge", "none", "host", w.network()),
		"RestartPolicy": object{"Name": pick(w, "no", "no", "on-failure", "unless-stopped"), "MaximumRetryCount": 0},
		"Binds":         pick(w, []string{}, []string{w.volume() + ":/data"}, []string{"/usr/share:/share:ro"}),
		"Tmpfs":         pick(w, object{}, object{"/scratch": "size=1m"}),
		"Memory":        pick(w, 0, 64<<20),
		"Init":          pick(w, false, true),
		"AutoRemove":    false,
	}
	body := object{
		"Image": pick(w, "busybox", "busybox", w.image()),
		"Cmd": pick(w,
			[]string{"sleep", "1000"},
			[]string{"sh", "-c", "trap 'exit 3' TERM; while true; do echo line; sleep 0.1; done"},
			[]string{"sh", "-c", "echo bye; exit 4"},
			[]string{"nosuchprogram"}),
		"Tty": pick(w, false, true), "HostConfig": host,
	}
	if w.rand.IntN(4) == 0 {
		body["ExposedPorts"] = object{"80/tcp": object{}}
		host["PortBindings"] = object{"80/tcp": []object{{"HostIp": "127.0.0.1", "HostPort": pick(w, "", "", fmt.Sprint(39000+w.rand.IntN(8)))}}}
	}
	if w.rand.IntN(4) == 0 {
		body["Healthcheck"] = object{"Test": []string{"CMD", "true"}, "Interval": int64(2e8), "Timeout": int64(2e9)}
	}
	if w.rand.IntN(3) == 0 {
		body["Volumes"] = object{"/anonymous": object{}}
	}
	return w.call(ctx, "POST", "/containers/create?name="+w.container(), body)
}

// execute runs a program in a container and waits for its end.
func execute(ctx context.Context, w *worker) (int, string, error) {
	var made struct{ ID string }
	status, text, err := w.call(ctx, "POST", "/containers/"+w.container()+"/exec", object{
		"Cmd": pick(w, []string{"true"}, []string{"sh", "-c", "echo x; exit 5"}, []string{"nosuch"}), "AttachStdout": true, "AttachStderr": true})
	if err != nil || status != http.StatusCreated {
		return status, text, err
	}
	if err := decode(text, &made); err != nil {
		return 0, "", err
	}
	return w.call(ctx, "POST", "/exec/"+made.ID+"/start", object{"Detach": pick(w, false, true)})
}

func update(ctx context.Context, w *worker) (int, string, error) {
	return w.call(ctx, "POST", "/containers/"+w.container()+"/update", object{"Memory": pick(w, 64<<20, 96<<20), "MemorySwap": -1, "CpuShares": pick(w, 100, 1000)})
}

// rename gives a container another of the names, which mostly is taken.
func rename(ctx context.Context, w *worker) (int, string, error) {
	return w.call(ctx, "POST", "/containers/"+w.container()+"/rename?name="+w.container(), nil)
}

// wait waits for something that has mostly happened, or goes away: clients come
// and go.
func wait(ctx context.Context, w *worker) (int, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 0)
	if w.rand.IntN(2) == 0 {
		cancel()
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), limit/200)
	}
	defer cancel()
	status, text, err := w.call(ctx, "POST", "/containers/"+w.container()+"/wait?condition="+pick(w, "not-running", "next-exit", "removed"), nil)
	if ctx.Err() != nil {
		return http.StatusOK, "", nil // gone away
	}
	return status, text, err
}

func commit(ctx context.Context, w *worker) (int, string, error) {
	return w.call(ctx, "POST", "/commit?container="+w.container()+"&repo="+w.image()+"&pause="+pick(w, "0", "1"), object{})
}

func connect(what string) func(context.Context, *worker) (int, string, error) {
	return func(ctx context.Context, w *worker) (int, string, error) {
		return w.call(ctx, "POST", "/networks/"+w.network()+"/"+what, object{"Container": w.container(), "Force": w.rand.IntN(2) == 0})
	}
}

// copyIn puts a small file into a container.
func copyIn(ctx context.Context, w *worker) (int, string, error) {
	return w.call(ctx, "PUT", "/containers/"+w.container()+"/archive?"+url.Values{"path": {"/tmp"}}.Encode(), archive())
}
