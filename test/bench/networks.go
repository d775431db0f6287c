package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"

	"slices"
	"sync"
	"time"

	"gantry/internal/network/kernel"
)

// networks measures the promises about networks: paths as ratios to the same
// paths made by hand, and what there is much of.
func networks(d *daemon) (out []result, err error) {
	w, err := build(d)
	if err != nil {
		return nil, err
	}
	defer w.close()
	within, port, err := w.paths(d)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		promise
		paths   [2]path
		measure func(path) (float64, error)
		unit    string
		scale   float64
	}{
		{promise{"throughput, one network", "of hand", 0.95, true}, within, path.throughput, "Gbit/s", 1e9},
		{promise{"throughput, published port", "of hand", 0.95, true}, port, path.throughput, "Gbit/s", 1e9},
		{promise{"connections, published port", "of hand", 0.8, true}, port, path.connections, "a second", 1},
	} {
		ratio, v, err := compare(15, m.paths, m.measure)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		out = append(out, result{m.promise, ratio, fmt.Sprintf("%.2f %s", v/m.scale, m.unit)})
	}
	for _, m := range []func(*daemon, *world) ([]result, error){questions, makeAndRemove, manyPorts} {
		rs, err := m(d, w)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	return out, nil
}

func middle[T cmp.Ordered](list []T) T {
	s := slices.Clone(list)
	slices.Sort(s)
	return s[len(s)/2]
}

// api sends a request to the daemon.
func (d *daemon) api(method, path string, body any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.sock)
	}}}
	r, err := http.NewRequest(method, "http://d"+path, bytes.NewReader(data))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := c.Do(r)
	if err != nil {
		return err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if a.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, a.Status, text)
	}
	return err
}

// makeAndRemove times networks that a container has been on, by turns with
// bridges of nobody, whose removal takes as long as the kernel does.
func makeAndRemove(d *daemon, _ *world) ([]result, error) {
	host, err := kernel.Open()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	var made, gone, hand []time.Duration
	for i := range 20 {
		name := fmt.Sprint("bench-n", i)
		begin := time.Now()
		err := d.api("POST", "/networks/create", map[string]string{"Name": name})
		made = append(made, time.Since(begin))
		for _, what := range []string{"connect", "disconnect"} {
			if err == nil {
				err = d.api("POST", "/networks/"+name+"/"+what, map[string]string{"Container": "bench-client"})
			}
		}
		begin = time.Now()
		if err == nil {
			err = d.api("DELETE", "/networks/"+name, nil)
		}
		gone = append(gone, time.Since(begin))
		if err == nil {
			_, err = host.EnsureBridge(kernel.Bridge{Name: "gbhand"})
		}
		begin = time.Now()
		if err == nil {
			err = exec.Command("ip", "link", "del", "gbhand").Run()
		}
		hand = append(hand, time.Since(begin))
		if err != nil {
			return nil, err
		}
	}
	rm, by := ms(median(gone)), ms(median(hand))
	return []result{
		{promise{"network create", "ms", 20, false}, ms(median(made)), ""},
		{promise{"network rm", "ms", 20, false}, rm, fmt.Sprintf("ip link del of a bridge %.1f ms", by)},
	}, nil
}

// manyPorts starts 200 containers with five published ports each, which then
// join another network all at once.
func manyPorts(d *daemon, _ *world) ([]result, error) {
	const many, ports, sample = 200, 5, 50
	name := func(i int) string { return fmt.Sprint("bench-p", i) }
	defer func() {
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() { _ = d.api("DELETE", "/containers/"+name(i)+"?force=1", nil) })
		}
		all.Wait()
		_ = d.api("DELETE", "/networks/bench-many", nil)
		_ = d.api("DELETE", "/networks/bench-join", nil)
	}()
	for i, n := range []string{"bench-many", "bench-join"} {
		pool := []map[string]string{{"Subnet": fmt.Sprintf("10.21%d.0.0/16", 4+i)}}
		if err := d.api("POST", "/networks/create", map[string]any{"Name": n, "IPAM": map[string]any{"Config": pool}}); err != nil {
			return nil, err
		}
	}
	before, err := resident(d.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for i := range many {
		bound := map[string]any{}
		for p := range ports {
			bound[fmt.Sprintf("%d/tcp", 80+p)] = []map[string]string{{"HostPort": fmt.Sprint(19000 + i*ports + p)}}
		}
		err := d.api("POST", "/containers/create?name="+name(i), map[string]any{"Image": "busybox", "Cmd": []string{"sleep", "3600"},
			"HostConfig": map[string]any{"NetworkMode": "bench-many", "PortBindings": bound}})
		if err != nil {
			return nil, err
		}
		begin := time.Now()
		if err := d.api("POST", "/containers/"+name(i)+"/start", nil); err != nil {
			return nil, err
		}
		times = append(times, time.Since(begin))
	}
	extra, err := helpers(d, many+2)
	if err != nil {
		return nil, err
	}
	after, err := resident(d.cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	failed := make([]error, many)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range many {
		all.Go(func() {
			failed[i] = d.api("POST", "/networks/bench-join/connect", map[string]string{"Container": name(i)})
		})
	}
	all.Wait()
	joined := time.Since(begin)
	errors := slices.DeleteFunc(failed, func(err error) bool { return err == nil })
	first, last := median(times[:sample]), median(times[many-sample:])
	detail := fmt.Sprintf("in %.1f s", joined.Seconds())
	if len(errors) > 0 {
		detail = errors[0].Error()
	}
	return []result{
		{promise{"start, 1,000 ports: last by first", "times", 1.3, false}, float64(last) / float64(first), fmt.Sprintf("median %.1f ms and %.1f ms", ms(last), ms(first))},
		{promise{"processes beside shims, programs", "", 0, false}, float64(extra), fmt.Sprintf("of %d containers with %d ports each", many, ports)},
		{promise{"daemon, per container with 5 ports", "kB", 600, false}, float64(after-before) / many, "names, endpoints, state"},
		{promise{"200 join one network: errors", "", 0, false}, float64(len(errors)), detail},
	}, nil
}

// questions asks for a container's name, from within another, as fast as eight
// clients can.
func questions(d *daemon, w *world) ([]result, error) {
	const clients, span = 8, 3 * time.Second
	times := make([][]time.Duration, clients)
	failed := make([]error, clients)
	var all sync.WaitGroup
	begin := time.Now()
	for i := range clients {
		all.Go(func() { times[i], failed[i] = resolve(w.spaces["client"], "bench-server", begin.Add(span)) })
	}
	all.Wait()
	took := time.Since(begin).Seconds()
	list := slices.Concat(times...)
	if err := errors.Join(failed...); err != nil || len(list) == 0 {
		return nil, fmt.Errorf("questions for names: %w", err)
	}
	return []result{
		{promise{"questions for names", "a second", 20000, true}, float64(len(list)) / took, "clients on the same processors"},
		{promise{"questions for names, 99 of 100", "ms", 5, false}, ms(quantile(list, 0.99)), ""},
	}, nil
}

func resolve(ns *kernel.Namespace, name string, until time.Time) ([]time.Duration, error) {
	var c net.Conn
	if err := ns.Do(func() (err error) { c, err = net.Dial("udp4", "127.0.0.11:53"); return err }); err != nil {
		return nil, err
	}
	defer c.Close()
	q := []byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, byte(len(name))}
	q = append(append(q, name...), 0, 0, 1, 0, 1) // RFC 1035 4.1
	answer := make([]byte, 512)
	var times []time.Duration
	for id := uint16(0); ; id++ {
		begin := time.Now()
		if begin.After(until) {
			return times, nil
		}
		binary.BigEndian.PutUint16(q, id)
		c.SetDeadline(begin.Add(5 * time.Second))
		if _, err := c.Write(q); err != nil {
			return nil, err
		}
		n, err := c.Read(answer)
		if err != nil {
			return nil, err
		}
		if n < 12 || binary.BigEndian.Uint16(answer) != id || binary.BigEndian.Uint16(answer[6:]) == 0 {
			return nil, fmt.Errorf("no answer to %s: %x", name, answer[:n])
		}
		times = append(times, time.Since(begin))
	}
}
