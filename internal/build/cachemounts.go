package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/solver/llbsolver/mounts"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"gantry/internal/content"
	"gantry/internal/errs"
	"gantry/internal/layer"
	"gantry/internal/wire"
)

// cacheMounts puts the cache mounts of builds into images and takes them out
// again. It is a frontend, so that whoever may build may use it, over the same
// connection. An image of cache mounts is like every other: it is pushed, pulled,
// saved and loaded; each of its layers has the files of one mount, whose key is an
// annotation of the layer.
type cacheMounts struct {
	worker *imageWorker
	stores *content.Store
	names  Names
	differ diff.Comparer
}

// Solve is frontend.Frontend's.
func (m cacheMounts) Solve(ctx context.Context, _ frontend.FrontendLLBBridge, _ executor.Executor, opt map[string]string, _ map[string]*pb.Definition, _ string, _ *session.Manager) (*frontend.Result, error) {
	var ids []string
	if s := opt[wire.CacheMountsIDs]; s != "" {
		if err := json.Unmarshal([]byte(s), &ids); err != nil {
			return nil, errs.New(errs.Invalid, "%s: %w", wire.CacheMountsIDs, err)
		}
	}
	var list []wire.CacheMount
	var err error
	switch action := opt[wire.CacheMountsAction]; action {
	case "list":
		list, err = m.list(ctx)
	case "export", "import":
		var name reference.Named
		if name, err = reference.ParseNormalizedNamed(opt[wire.CacheMountsImage]); err != nil {
			return nil, errs.With(errs.Invalid, err)
		}
		full := reference.TagNameOnly(name).String()
		if action == "export" {
			list, err = m.export(ctx, full, ids)
		} else {
			list, err = m.load(ctx, full, ids)
		}
	default:
		err = errs.New(errs.Invalid, "unknown action %q", action)
	}
	if err != nil {
		return nil, err
	}
	answer, err := json.Marshal(list)
	res := &frontend.Result{}
	res.AddMeta(wire.CacheMountsAnswer, answer)
	return res, err
}

// BuildKit's index of cache mounts: a key is the namespace, a slash, the ID, and,
// where the mount begins with other files, a colon and what these are here.
const cacheDirKey = "cache-dir"

// begun are the keys of mounts that begin with other files: they mean nothing
// elsewhere.
var begun = regexp.MustCompile(`:[a-z0-9]{25}$`)

// mountName is what a person calls a key.
func mountName(key string) string {
	return strings.TrimPrefix(begun.ReplaceAllString(key, ""), "/")
}

// begins is why a mount that begins with other files can't be exported.
const begins = "it begins with other files (from=, uid=, gid= or mode=), which only this daemon knows"

// exportable refuses IDs that only mounts have which begin with other files, and all
// if there are no others. Pure.
func exportable(keys, ids []string) ([]string, error) {
	var free, bound []string
	for _, k := range keys {
		if begun.MatchString(k) {
			bound = append(bound, k)
		} else {
			free = append(free, k)
		}
	}
	refused := func(key string) error {
		return errs.New(errs.Unsupported, "cache mount %q can't be exported: %s", mountName(key), begins)
	}
	if len(ids) == 0 && len(free) == 0 && len(bound) > 0 {
		return nil, refused(bound[0])
	}
	for _, id := range ids {
		named := func(k string) bool { return mountName(k) == id }
		if i := slices.IndexFunc(bound, named); i >= 0 && !slices.ContainsFunc(free, named) {
			return nil, refused(bound[i])
		}
	}
	return free, nil
}

// cacheMount is one key, with its records: a mount that is not shared can have
// several.
type cacheMount struct {
	wire.CacheMount
	records []*client.UsageInfo // the one used last is first
}

// all returns the cache mounts that are here, by key.
func (m cacheMounts) all(ctx context.Context) (map[string]*cacheMount, error) {
	books, err := m.worker.CacheMgr.Search(ctx, cacheDirKey+":", true)
	if err != nil {
		return nil, err
	}
	keys := map[string]string{}
	for _, md := range books {
		keys[md.ID()] = md.GetString(cacheDirKey)
	}
	usage, err := m.worker.DiskUsage(ctx, client.DiskUsageInfo{})
	if err != nil {
		return nil, err
	}
	out := map[string]*cacheMount{}
	for _, u := range usage {
		key := keys[u.ID]
		if key == "" {
			continue
		}
		x := out[key]
		if x == nil {
			x = &cacheMount{CacheMount: wire.CacheMount{ID: mountName(key)}}
			out[key] = x
		}
		x.records = append(x.records, u)
	}
	for _, x := range out {
		slices.SortFunc(x.records, func(a, b *client.UsageInfo) int { return usedAt(b).Compare(usedAt(a)) })
		last := x.records[0]
		x.Size, x.InUse, x.LastUsedAt = max(last.Size, 0), last.InUse, last.LastUsedAt
	}
	return out, nil
}

func usedAt(u *client.UsageInfo) time.Time {
	if u.LastUsedAt != nil {
		return *u.LastUsedAt
	}
	return u.CreatedAt
}

func (m cacheMounts) list(ctx context.Context) ([]wire.CacheMount, error) {
	all, err := m.all(ctx)
	out := make([]wire.CacheMount, 0, len(all))
	for _, key := range slices.Sorted(maps.Keys(all)) {
		x := all[key].CacheMount
		x.Stays = begun.MatchString(key)
		out = append(out, x)
	}
	return out, err
}

// chosen returns those of the keys that ids name, all without any. An ID that no
// key has is an error that says where there is none.
func chosen(keys, ids []string, where string) ([]string, error) {
	if len(ids) == 0 {
		if len(keys) == 0 {
			return nil, errs.New(errs.NotFound, "no cache mounts %s", where)
		}
		return keys, nil
	}
	var out []string
	for _, id := range ids {
		i := slices.IndexFunc(keys, func(k string) bool { return mountName(k) == id })
		if i < 0 {
			return nil, errs.New(errs.NotFound, "no cache mount %q %s", id, where)
		}
		if !slices.Contains(out, keys[i]) {
			out = append(out, keys[i])
		}
	}
	return out, nil
}

// export makes the image name of cache mounts.
func (m cacheMounts) export(ctx context.Context, name string, ids []string) ([]wire.CacheMount, error) {
	all, err := m.all(ctx)
	if err != nil {
		return nil, err
	}
	here := slices.Sorted(maps.Keys(all))
	free, err := exportable(here, ids)
	if err != nil {
		return nil, err
	}
	keys, err := chosen(free, ids, "here")
	if err != nil {
		return nil, err
	}
	held, release, err := m.stores.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	now := time.Now().UTC()
	config := ocispec.Image{Created: &now, Platform: platforms.Normalize(platforms.DefaultSpec()), RootFS: ocispec.RootFS{Type: "layers"}}
	config.Config.Labels = map[string]string{wire.CacheMountLabel: "1"}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Annotations: map[string]string{wire.CacheMountLabel: "1"}}
	out := make([]wire.CacheMount, 0, len(keys))
	for _, key := range keys {
		d, diffID, err := m.pack(ctx, held, all[key])
		if err != nil {
			return nil, fmt.Errorf("cache mount %q: %w", mountName(key), err)
		}
		d.Annotations = map[string]string{wire.CacheMountLabel: key}
		manifest.Layers = append(manifest.Layers, d)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diffID)
		config.History = append(config.History, ocispec.History{Created: &now, CreatedBy: "cache mount " + mountName(key)})
		out = append(out, wire.CacheMount{ID: mountName(key), Size: d.Size})
	}
	for _, key := range here {
		if len(ids) == 0 && begun.MatchString(key) {
			out = append(out, wire.CacheMount{ID: mountName(key), Stays: true})
		}
	}
	if manifest.Config, err = m.write(held, ocispec.MediaTypeImageConfig, config); err != nil {
		return nil, err
	}
	target, err := m.write(held, ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return nil, err
	}
	if err := m.stores.Refer(held, target.Digest, "", append(slices.Clone(manifest.Layers), manifest.Config)...); err != nil {
		return nil, err
	}
	return out, m.names.Built(held, name, target)
}

func (m cacheMounts) write(ctx context.Context, media string, v any) (ocispec.Descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := m.stores.Write(ctx, strings.NewReader(string(data)), digest.FromBytes(data))
	d.MediaType = media
	return d, err
}

// inUseFor is how long a mount that a build has is waited for.
const inUseFor = 10 * time.Second

// take gets hold of the record of a mount that was used last.
func (m cacheMounts) take(ctx context.Context, x *cacheMount) (cache.MutableRef, error) {
	for end := time.Now().Add(inUseFor); ; {
		ref, err := m.worker.CacheMgr.GetMutable(ctx, x.records[0].ID)
		if !errors.Is(err, cache.ErrLocked) {
			return ref, err
		}
		if time.Now().After(end) {
			return nil, errs.New(errs.Conflict, "a build uses it")
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// mounted calls f with how the files of ref are mounted.
func mounted(ctx context.Context, ref cache.MutableRef, f func([]mount.Mount) error) error {
	at, err := ref.Mount(ctx, false, nil)
	if err != nil {
		return err
	}
	list, release, err := at.Mount()
	if err != nil {
		return err
	}
	return errors.Join(f(list), release())
}

// pack makes a layer of a mount's files. The blob belongs to the lease of held.
func (m cacheMounts) pack(ctx, held context.Context, x *cacheMount) (d ocispec.Descriptor, diffID digest.Digest, err error) {
	ref, err := m.take(ctx, x)
	if err != nil {
		return d, "", err
	}
	defer func() { err = errors.Join(err, ref.Release(context.WithoutCancel(ctx))) }()
	err = mounted(ctx, ref, func(list []mount.Mount) error {
		d, err = m.differ.Compare(content.Namespaced(held), nil, list, diff.WithMediaType(ocispec.MediaTypeImageLayerZstd))
		return err
	})
	if err != nil {
		return d, "", err
	}
	info, err := m.stores.Blobs().Info(content.Namespaced(held), d.Digest)
	if err != nil {
		return d, "", err
	}
	diffID, err = digest.Parse(info.Labels[labels.LabelUncompressed])
	return d, diffID, err
}

// load replaces cache mounts by what an image has of them. One that can't be read
// to its end leaves the mount that was there.
func (m cacheMounts) load(ctx context.Context, name string, ids []string) ([]wire.CacheMount, error) {
	held, release, err := m.stores.Hold(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	held = content.Namespaced(held)
	img, err := m.stores.Images().Get(held, name)
	if err != nil {
		return nil, errs.New(errs.NotFound, "No such image: %s", name)
	}
	manifest, err := images.Manifest(held, m.stores.Blobs(), img.Target, platforms.All)
	if err != nil {
		return nil, err
	}
	data, err := m.stores.Read(held, manifest.Config, 4<<20)
	if err != nil {
		return nil, err
	}
	var config ocispec.Image
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, errs.With(errs.Invalid, err)
	}
	var keys []string
	at := map[string]int{}
	for i, l := range manifest.Layers {
		if key := l.Annotations[wire.CacheMountLabel]; key != "" && i < len(config.RootFS.DiffIDs) {
			keys, at[key] = append(keys, key), i
		}
	}
	if keys, err = chosen(keys, ids, "in "+name); err != nil {
		return nil, err
	}
	out := make([]wire.CacheMount, 0, len(keys))
	for _, key := range keys {
		l := manifest.Layers[at[key]]
		if err := m.fill(ctx, key, name, l.Digest, config.RootFS.DiffIDs[at[key]]); err != nil {
			return nil, fmt.Errorf("cache mount %q: %w", mountName(key), err)
		}
		out = append(out, wire.CacheMount{ID: mountName(key), Size: l.Size})
	}
	return out, nil
}

// fill makes a mount of a layer and then gives it the key.
func (m cacheMounts) fill(ctx context.Context, key, from string, blob, diffID digest.Digest) (err error) {
	what := fmt.Sprintf("cached mount %s from image %s", mountName(key), from)
	ref, err := m.worker.CacheMgr.New(ctx, nil, nil, cache.WithRecordType(client.UsageRecordTypeCacheMount), cache.WithDescription(what))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ref.Release(context.WithoutCancel(ctx))) }()
	err = mounted(ctx, ref, func(list []mount.Mount) error {
		if len(list) != 1 || list[0].Type == "overlay" {
			return errs.New(errs.Unsupported, "an empty layer is no directory")
		}
		r, _, err := m.stores.Open(ctx, blob)
		if err != nil {
			return err
		}
		_, _, err = layer.Unpack(ctx, list[0].Source, r, diffID, layer.Options{Limits: m.stores.Limits()})
		return errors.Join(err, r.Close())
	})
	if err != nil {
		return err
	}
	if err := m.worker.PruneCacheMounts(ctx, map[string]bool{key: false}); err != nil {
		return err
	}
	mu := mounts.CacheMountsLocker()
	mu.Lock()
	defer mu.Unlock()
	return errors.Join(ref.SetCachePolicyRetain(), ref.SetString(cacheDirKey, key, cacheDirKey+":"+key))
}
