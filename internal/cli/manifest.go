package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"gantry/internal/cli/conf"
	"gantry/internal/cli/manifests"
	"gantry/internal/cli/ref"
	"gantry/internal/errs"
)

// manifestWork is one manifest command at work: lists of this user, and the
// registries that it asks.
type manifestWork struct {
	a        *App
	store    manifests.Store
	insecure bool
	open     map[string]*manifests.Registry
}

// manifestRun gives a command its work.
func manifestRun(a *App, insecure *bool, f func(ctx context.Context, w *manifestWork, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		w := &manifestWork{a: a, store: manifests.Store{Dir: filepath.Join(a.global.Dir, "manifests")}, open: map[string]*manifests.Registry{}}
		if insecure != nil {
			w.insecure = *insecure
		}
		defer func() {
			for _, r := range w.open {
				r.Close()
			}
		}()
		return f(cmd.Context(), w, args)
	}
}

// manifestName reads a name, with the tag latest if it has none.
func manifestName(s string) (ref.Name, error) {
	n, err := ref.Parse(s)
	return n.Tagged(), err
}

// fullName is how lists and their manifests are filed.
func fullName(n ref.Name) string {
	s := n.Repository()
	if n.Tag != "" {
		s += ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest
	}
	return s
}

func versionOf(n ref.Name) string {
	if n.Digest != "" {
		return n.Digest
	}
	return n.Tag
}

// registry opens that of a name, once.
func (w *manifestWork) registry(ctx context.Context, n ref.Name) (*manifests.Registry, error) {
	if r := w.open[n.Domain]; r != nil {
		return r, nil
	}
	auth, err := w.a.config().Credentials(conf.ServerKey(n.Domain))
	if err != nil {
		return nil, err
	}
	insecure := ""
	if w.insecure {
		insecure = "--insecure"
	}
	r, err := manifests.Open(ctx, n.Domain, manifests.Credentials{Username: auth.Username, Password: auth.Password, Identity: auth.IdentityToken, Token: auth.RegistryToken}, insecure)
	if err != nil {
		return nil, err
	}
	w.open[n.Domain] = r
	return r, nil
}

// fetch returns a manifest or list of a registry.
func (w *manifestWork) fetch(ctx context.Context, n ref.Name) (manifests.Descriptor, []byte, error) {
	r, err := w.registry(ctx, n)
	if err != nil {
		return manifests.Descriptor{}, nil, err
	}
	d, data, err := r.Manifest(ctx, n.Path, versionOf(n))
	if errs.Is(err, errs.NotFound) {
		err = errs.New(errs.NotFound, "no such manifest: %s", n.String())
	}
	return d, data, err
}

// fetchOne returns a manifest that is no list, with its platform.
func (w *manifestWork) fetchOne(ctx context.Context, n ref.Name) (manifests.Manifest, error) {
	d, data, err := w.fetch(ctx, n)
	if err != nil {
		return manifests.Manifest{}, err
	}
	if manifests.IsList(d.MediaType) {
		return manifests.Manifest{}, fmt.Errorf("%s is a manifest list", n.String())
	}
	return w.complete(ctx, n, d, data)
}

func (w *manifestWork) complete(ctx context.Context, n ref.Name, d manifests.Descriptor, data []byte) (manifests.Manifest, error) {
	if d.Platform == nil {
		r, err := w.registry(ctx, n)
		if err == nil {
			d.Platform, err = r.PlatformOf(ctx, n.Path, data)
		}
		if err != nil {
			return manifests.Manifest{}, err
		}
	}
	return manifests.Make(fullName(n), d, data), nil
}

func manifestCreateCommand(a *App) *cobra.Command {
	var amend, insecure bool
	cmd := leaf("create MANIFEST_LIST MANIFEST [MANIFEST...]", "Create a local manifest list for annotating and pushing to a registry", minArgs(2), manifestRun(a, &insecure, func(ctx context.Context, w *manifestWork, args []string) error {
		list, err := manifestName(args[0])
		if err != nil {
			return fmt.Errorf("error parsing name for manifest list %s: %w", args[0], err)
		}
		full := fullName(list)
		if w.store.Has(full) && !amend {
			return errors.New("refusing to amend an existing manifest list with no --amend flag")
		}
		var all []manifests.Manifest
		var names []string
		for _, arg := range args[1:] {
			n, err := manifestName(arg)
			if err != nil {
				return err
			}
			m, err := w.store.Get(full, fullName(n))
			if errs.Is(err, errs.NotFound) {
				m, err = w.fetchOne(ctx, n)
			}
			if err != nil {
				return err
			}
			all, names = append(all, m), append(names, fullName(n))
		}
		for i, m := range all { // once all of them are there
			if err := w.store.Put(full, names[i], m); err != nil {
				return err
			}
		}
		fmt.Fprintf(a.Out, "Created manifest list %s\n", full)
		return nil
	}))
	cmd.Flags().BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	cmd.Flags().BoolVarP(&amend, "amend", "a", false, "Amend an existing manifest list")
	return cmd
}

func manifestAnnotateCommand(a *App) *cobra.Command {
	var p manifests.Platform
	cmd := leaf("annotate [OPTIONS] MANIFEST_LIST MANIFEST", "Add additional information to a local image manifest", exactArgs(2), manifestRun(a, nil, func(_ context.Context, w *manifestWork, args []string) error {
		list, err := manifestName(args[0])
		if err != nil {
			return fmt.Errorf("annotate: error parsing name for manifest list %s: %w", args[0], err)
		}
		n, err := manifestName(args[1])
		if err != nil {
			return fmt.Errorf("annotate: error parsing name for manifest %s: %w", args[1], err)
		}
		m, err := w.store.Get(fullName(list), fullName(n))
		if errs.Is(err, errs.NotFound) {
			return fmt.Errorf("manifest for image %s does not exist in %s", args[1], args[0])
		} else if err != nil {
			return err
		}
		m.Descriptor.Platform = annotate(m.Descriptor.Platform, p)
		return w.store.Put(fullName(list), fullName(n), m)
	}))
	fs := cmd.Flags()
	fs.StringVar(&p.OS, "os", "", "Set operating system")
	fs.StringVar(&p.Architecture, "arch", "", "Set architecture")
	fs.StringVar(&p.OSVersion, "os-version", "", "Set operating system version")
	fs.StringSliceVar(&p.OSFeatures, "os-features", nil, "Set operating system feature")
	fs.StringVar(&p.Variant, "variant", "", "Set architecture variant")
	return cmd
}

// annotate changes what is said in by; features are added.
func annotate(old *manifests.Platform, by manifests.Platform) *manifests.Platform {
	p := manifests.Platform{}
	if old != nil {
		p = *old
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&p.OS, by.OS}, {&p.Architecture, by.Architecture}, {&p.OSVersion, by.OSVersion}, {&p.Variant, by.Variant}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	seen := map[string]bool{}
	var features []string
	for _, f := range append(append([]string{}, p.OSFeatures...), by.OSFeatures...) {
		if !seen[f] {
			features = append(features, f)
		}
		seen[f] = true
	}
	p.OSFeatures = features
	return &p
}

func manifestInspectCommand(a *App) *cobra.Command {
	var verbose, insecure bool
	cmd := leaf("inspect [OPTIONS] [MANIFEST_LIST] MANIFEST", "Display an image manifest, or manifest list", rangeArgs(1, 2), manifestRun(a, &insecure, func(ctx context.Context, w *manifestWork, args []string) error {
		n, err := manifestName(args[len(args)-1])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			list, err := manifestName(args[0])
			if err != nil {
				return err
			}
			m, err := w.store.Get(fullName(list), fullName(n))
			if err != nil {
				return err
			}
			return w.show(m, verbose)
		}
		if all, err := w.store.All(fullName(n)); err == nil {
			return w.showList(all, verbose)
		}
		d, data, err := w.fetch(ctx, n)
		if err != nil {
			return err
		}
		if !manifests.IsList(d.MediaType) {
			m := manifests.Make(fullName(n), d, data)
			if verbose {
				if m, err = w.complete(ctx, n, d, data); err != nil {
					return err
				}
			}
			return w.show(m, verbose)
		}
		if !verbose {
			return w.print(data, "   ")
		}
		all, err := w.members(ctx, n, data)
		if err != nil {
			return err
		}
		return w.showList(all, true)
	}))
	cmd.Flags().BoolVar(&insecure, "insecure", false, "Allow communication with an insecure registry")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Output additional info including layers and platform")
	return cmd
}

// members fetches the manifests that a list names.
func (w *manifestWork) members(ctx context.Context, n ref.Name, list []byte) ([]manifests.Manifest, error) {
	var l struct{ Manifests []manifests.Descriptor }
	if err := json.Unmarshal(list, &l); err != nil {
		return nil, err
	}
	var all []manifests.Manifest
	for _, d := range l.Manifests {
		one := n
		one.Digest = d.Digest
		_, data, err := w.fetch(ctx, one)
		if err != nil {
			return nil, err
		}
		m, err := w.complete(ctx, one, d, data)
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (w *manifestWork) print(data []byte, indent string) error {
	var b bytes.Buffer
	if err := json.Indent(&b, data, "", indent); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w.a.Out, b.String())
	return err
}

func (w *manifestWork) show(m manifests.Manifest, verbose bool) error {
	if !verbose {
		return w.print(m.Raw, "\t")
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return w.print(data, "\t")
}

func (w *manifestWork) showList(all []manifests.Manifest, verbose bool) error {
	if !verbose {
		data, _, err := manifests.List(all)
		if err != nil {
			return err
		}
		return w.print(data, "   ")
	}
	data, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return w.print(data, "\t")
}

func manifestPushCommand(a *App) *cobra.Command {
	var purge, insecure bool
	cmd := leaf("push [OPTIONS] MANIFEST_LIST", "Push a manifest list to a repository", exactArgs(1), manifestRun(a, &insecure, func(ctx context.Context, w *manifestWork, args []string) error {
		n, err := manifestName(args[0])
		if err != nil {
			return err
		}
		all, err := w.store.All(fullName(n))
		if err != nil {
			return err
		}
		data, mediaType, err := manifests.List(all)
		if err != nil {
			return err
		}
		for _, m := range all {
			if err := w.pushMember(ctx, n, m); err != nil {
				return err
			}
		}
		r, err := w.registry(ctx, n)
		if err != nil {
			return err
		}
		if err := r.Put(ctx, n.Path, n.Tag, mediaType, data); err != nil {
			return err
		}
		fmt.Fprintln(a.Out, manifests.Digest(data))
		if purge {
			return w.store.Remove(fullName(n))
		}
		return nil
	}))
	cmd.Flags().BoolVarP(&purge, "purge", "p", false, "Remove the local manifest list after push")
	cmd.Flags().BoolVar(&insecure, "insecure", false, "Allow push to an insecure registry")
	return cmd
}

// pushMember has a manifest, and what it needs, be in the list's repository.
func (w *manifestWork) pushMember(ctx context.Context, list ref.Name, m manifests.Manifest) error {
	from, err := ref.Parse(m.Ref)
	if err != nil {
		return err
	}
	if from.Domain != list.Domain {
		return fmt.Errorf("cannot use source images from a different registry than the target image: %s != %s", from.Domain, list.Domain)
	}
	if from.Path == list.Path {
		return nil // it came from there
	}
	r, err := w.registry(ctx, list)
	if err != nil {
		return err
	}
	blobs, err := manifests.Blobs(m.Raw)
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if err := r.Mount(ctx, list.Path, from.Path, b); err != nil {
			return fmt.Errorf("mount %s of %s: %w", b.Digest, from.Repository(), err)
		}
	}
	if err := r.Put(ctx, list.Path, m.Descriptor.Digest, m.Descriptor.MediaType, m.Raw); err != nil {
		return err
	}
	fmt.Fprintf(w.a.Out, "Pushed ref %s@%s with digest: %s\n", list.Repository(), m.Descriptor.Digest, m.Descriptor.Digest)
	return nil
}

func manifestRmCommand(a *App) *cobra.Command {
	return leaf("rm MANIFEST_LIST [MANIFEST_LIST...]", "Delete one or more manifest lists from local storage", minArgs(1), manifestRun(a, nil, func(_ context.Context, w *manifestWork, args []string) error {
		var all []string
		for _, arg := range args {
			n, err := manifestName(arg)
			if err == nil && !w.store.Has(fullName(n)) {
				err = errs.New(errs.NotFound, "No such manifest: %s", fullName(n))
			}
			if err == nil {
				err = w.store.Remove(fullName(n))
			}
			if err != nil {
				all = append(all, err.Error())
			}
		}
		if len(all) > 0 {
			return errors.New(strings.Join(all, "\n"))
		}
		return nil
	}))
}
