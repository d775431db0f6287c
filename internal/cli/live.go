package cli

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"

	"gantry/internal/cli/create"
	"gantry/internal/cli/opt"
	"gantry/internal/errs"
	"gantry/internal/wire"
)

// liveFlags are the flags of update that Docker's has not: they change a
// container that runs.
type liveFlags struct {
	publish, publishAdd, publishRm opt.List
	mounts                         opt.Mounts
	volumes, mountRm               opt.List
	env, envRm, labels, labelRm    opt.List
	rate                           opt.Rate
}

func (f *liveFlags) add(fs *pflag.FlagSet) {
	f.env.Check = opt.Env(os.LookupEnv)
	f.labels.Check = opt.Label
	fs.VarP(&f.publish, "publish", "p", `Publish these ports instead of those published ("none" for no port)`)
	fs.Var(&f.publishAdd, "publish-add", "Publish further ports")
	fs.Var(&f.publishRm, "publish-rm", "Publish a port no more ([[IP:]HOST_PORT:]PORT[/PROTOCOL])")
	fs.Var(&f.mounts, "mount-add", "Attach a filesystem mount to the container")
	fs.VarP(&f.volumes, "volume", "v", "Bind mount or attach a volume to the container")
	fs.Var(&f.mountRm, "mount-rm", "Remove the mount at a path of the container")
	fs.Var(&f.rate, "net-rate", `Bound the traffic of each network (in=10mbit,out=5mbit, or "none")`)
	fs.VarP(&f.env, "env", "e", "Set environment variables from the next start on")
	fs.Var(&f.envRm, "env-rm", "Unset an environment variable from the next start on")
	fs.VarP(&f.labels, "label", "l", "Set meta data on the container")
	fs.Var(&f.labelRm, "label-rm", "Remove a label from the container")
}

// extra is what the flags ask for, or nil if none was given.
func (f *liveFlags) extra() (*wire.UpdateExtra, error) {
	if len(f.mounts.IDMaps) > 0 {
		return nil, errs.New(errs.Invalid, "idmap is for the mounts that a container is created with")
	}
	x := &wire.UpdateExtra{AddMounts: slices.Clone(f.mounts.List), RemoveMounts: f.mountRm.Values, RemovePorts: f.publishRm.Values, RemoveLabels: f.labelRm.Values}
	used := len(f.mounts.List)+len(f.volumes.Values)+len(f.mountRm.Values)+len(f.publish.Values)+len(f.publishAdd.Values)+len(f.publishRm.Values) > 0 ||
		len(f.env.Values)+len(f.envRm.Values)+len(f.labels.Values)+len(f.labelRm.Values) > 0 || f.rate.Given
	if !used {
		return nil, nil
	}
	if f.rate.Given {
		x.NetRate = &f.rate.Value
	}
	if len(f.publish.Values) > 0 {
		list := f.publish.Values
		if slices.Equal(list, []string{"none"}) {
			list = nil
		}
		_, ports, err := create.Ports(list)
		if err != nil {
			return nil, err
		}
		x.PublishedPorts = &ports
	}
	var err error
	if _, x.AddPorts, err = create.Ports(f.publishAdd.Values); err != nil {
		return nil, err
	}
	for _, v := range f.volumes.Values {
		m, err := volumeMount(v)
		if err != nil {
			return nil, err
		}
		x.AddMounts = append(x.AddMounts, m)
	}
	x.Env = append(slices.Clone(f.env.Values), f.envRm.Values...)
	for _, k := range f.envRm.Values {
		if strings.Contains(k, "=") {
			return nil, fmt.Errorf("invalid environment variable name: %s", k)
		}
	}
	if len(f.labels.Values) > 0 {
		x.Labels = opt.ToMap(f.labels.Values)
	}
	return x, nil
}

// volumeMount reads [SOURCE:]TARGET[:MODE] as -v has it.
func volumeMount(v string) (wire.Mount, error) {
	parts := strings.Split(v, ":")
	m := wire.Mount{Type: mount.TypeVolume, Target: parts[0]}
	mode := ""
	switch len(parts) {
	case 1:
	case 2, 3:
		m.Source, m.Target = parts[0], parts[1]
		mode = strings.Join(parts[2:], "")
	default:
		return m, errs.New(errs.Invalid, "invalid spec: %s: too many colons", v)
	}
	if strings.HasPrefix(m.Source, ".") {
		abs, err := filepath.Abs(m.Source)
		if err != nil {
			return m, err
		}
		m.Source = abs
	}
	if path.IsAbs(m.Source) {
		m.Type, m.BindOptions = mount.TypeBind, &mount.BindOptions{CreateMountpoint: true}
	}
	for o := range strings.SplitSeq(mode, ",") {
		switch {
		case o == "" || o == "rw" || o == "z" || o == "Z":
		case o == "ro":
			m.ReadOnly = true
		case o == "nocopy" && m.Type == mount.TypeVolume:
			m.VolumeOptions = &mount.VolumeOptions{NoCopy: true}
		case m.Type == mount.TypeBind && slices.Contains(mount.Propagations, mount.Propagation(o)):
			m.BindOptions.Propagation = mount.Propagation(o)
		default:
			return m, errs.New(errs.Invalid, "invalid mode: %s", mode)
		}
	}
	return m, nil
}
