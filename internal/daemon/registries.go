package daemon

import (
	"context"
	"strconv"

	"github.com/distribution/reference"

	"gantry/internal/config"
	"gantry/internal/errs"
	"gantry/internal/filter"
	"gantry/internal/image"
	"gantry/internal/remote"
	"gantry/internal/server"
	"gantry/internal/version"
	"gantry/internal/wire"
)

// certDirs hold certificates of registries, one directory a host: Docker's and
// ours.
var certDirs = [...]string{"/etc/docker/certs.d", "/etc/gantry/certs.d"}

// load reads the configuration, and what it says of registries is looked at too.
func load(args []string) (*config.Config, config.Command, error) {
	c, cmd, err := config.Load(args)
	if err == nil && c != nil {
		err = remoteConfig(c).Check()
	}
	return c, cmd, err
}

// registries makes the client of registries.
func (d *Daemon) registries(images *imageStore) registryAPI {
	client := remote.New(remote.Options{
		Content: images.content, Names: images.Images, Log: d.log,
		Config: func() remote.Config { return remoteConfig(d.config.Load()) },
		Agent:  agent(),
	})
	return registryAPI{client, &lazyPulls{
		images: images, client: client, log: d.log,
		config: func() remote.Config { return remoteConfig(d.config.Load()) },
		always: func() bool { return d.config.Load().LazyPull },
	}}
}

// agent is what registries are told of us.
func agent() string { return "gantry/" + version.Version + " docker/" + version.Engine }

func remoteConfig(c *config.Config) remote.Config {
	r := remote.Config{
		Mirrors: c.RegistryMirrors, Insecure: c.InsecureRegistries, CertDirs: certDirs[:],
		HTTPProxy: c.HTTPProxy, HTTPSProxy: c.HTTPSProxy, NoProxy: c.NoProxy,
		Downloads: c.MaxDownloads, Uploads: c.MaxUploads, Attempts: c.DownloadAttempts,
		Registries: map[string]remote.Registry{},
	}
	for prefix, t := range c.Registries {
		r.Registries[prefix] = remote.Registry(t)
	}
	return r
}

// registryAPI is the client of registries as the API wants it.
type registryAPI struct {
	client *remote.Client
	lazy   *lazyPulls
}

// credentials reads those of a request. Docker takes what it can't read for
// none.
func credentials(header string) wire.RegistryAuth {
	a, err := remote.DecodeAuth(header)
	if err != nil {
		return wire.RegistryAuth{}
	}
	return a
}

// Pull pulls an image, or all of a repository if neither name nor tag say which.
func (r registryAPI) Pull(ctx context.Context, o server.ImagePull, tell func(wire.Progress)) error {
	p, err := image.ParsePlatform(o.Platform)
	if err != nil {
		return err
	}
	name, err := remote.ParseName(o.Name, o.Tag)
	if err != nil {
		return err
	}
	po := remote.PullOptions{Name: name, All: reference.IsNameOnly(name), Platform: p, Auth: credentials(o.Auth)}
	if (o.Lazy || r.lazy.always()) && !po.All {
		if done, err := r.lazy.pull(ctx, lazyPull{po, o.Lazy}, tell); done || err != nil {
			return err
		}
	}
	return r.client.Pull(ctx, po, tell)
}

// Push pushes an image.
func (r registryAPI) Push(ctx context.Context, o server.ImagePush, tell func(wire.Progress)) error {
	name, err := remote.ParseName(o.Name, o.Tag)
	if err != nil {
		return err
	}
	if _, ok := name.(reference.Digested); ok {
		return errs.New(errs.Invalid, "cannot push a digest reference")
	}
	return r.client.Push(ctx, remote.PushOptions{Name: name, Platform: one(o.Platform), Auth: credentials(o.Auth)}, tell)
}

// Search searches a registry.
func (r registryAPI) Search(ctx context.Context, o server.ImageSearch) ([]wire.RegistrySearch, error) {
	s := remote.SearchOptions{Term: o.Term, Limit: o.Limit, Auth: credentials(o.Auth)}
	var err error
	if o.Filters.Has("is-automated") {
		if s.Automated, err = o.Filters.Bool("is-automated", filter.OtherwiseFalse); err != nil {
			return nil, err
		}
	}
	if o.Filters.Has("is-official") {
		v, err := o.Filters.Bool("is-official", filter.OtherwiseFalse)
		if err != nil {
			return nil, err
		}
		s.Official = &v
	}
	for _, v := range o.Filters.Values("stars") {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, errs.New(errs.Invalid, "invalid filter 'stars=%s': %w", v, err)
		}
		s.Stars = max(s.Stars, n)
	}
	return r.client.Search(ctx, s)
}

// Lookup asks a registry what a name means.
func (r registryAPI) Lookup(ctx context.Context, name, auth string) (wire.DistributionInspect, error) {
	n, err := remote.ParseName(name, "")
	if err != nil {
		return wire.DistributionInspect{}, err
	}
	return r.client.Lookup(ctx, n, credentials(auth))
}

// Login has a registry check credentials.
func (r registryAPI) Login(ctx context.Context, a wire.RegistryAuth) (wire.RegistryAuthReply, error) {
	return r.client.Login(ctx, a)
}
