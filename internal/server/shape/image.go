package shape

import (
	"github.com/moby/moby/api/types/storage"

	"gantry/internal/wire"
)

// oldSummary is an image of a list before 1.44. The embedded struct keeps the
// order of the fields.
type oldSummary struct {
	wire.ImageSummary
	VirtualSize int64
}

// Images forms the answer of an image list.
func Images(list []wire.ImageSummary, v int) []any {
	out := make([]any, 0, len(list))
	for _, img := range list {
		if v < 1048 {
			img.Descriptor = nil
		}
		if v < 1051 {
			img.Containers = -1
		}
		if img.RepoTags == nil {
			img.RepoTags = []string{}
		}
		if img.RepoDigests == nil {
			img.RepoDigests = []string{}
		}
		if v < 1043 && len(img.RepoTags) == 0 {
			img.RepoTags = []string{"<none>:<none>"}
		}
		if v < 1043 && len(img.RepoDigests) == 0 {
			img.RepoDigests = []string{"<none>@<none>"}
		}
		if v >= 1044 {
			out = append(out, img)
			continue
		}
		out = append(out, oldSummary{img, img.Size})
	}
	return out
}

// Forms of image inspect that later versions leave out.
var (
	// oldConfig are the empty fields of Config up to 1.51.
	oldConfig = object{"Cmd": nil, "Entrypoint": nil, "Env": nil, "Labels": nil, "OnBuild": nil, "User": "", "Volumes": nil, "WorkingDir": ""}
	// olderConfig are the fields of Config that stood for a container, up to 1.49.
	olderConfig = object{
		"Hostname": "", "Domainname": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
		"Tty": false, "OpenStdin": false, "StdinOnce": false, "Image": "",
	}
)

// Image forms the answer of an image inspect.
func Image(img wire.ImageInspect, v int, driver string) (any, error) {
	if v < 1048 {
		img.Descriptor = nil
	}
	if v < 1053 {
		img.Identity = nil
	}
	if v >= 1052 {
		img.GraphDriver = nil
		return img, nil
	}
	if img.GraphDriver == nil {
		img.GraphDriver = &storage.DriverData{Name: driver}
	}
	if img.RepoTags == nil {
		img.RepoTags = []string{}
	}
	if img.RepoDigests == nil {
		img.RepoDigests = []string{}
	}
	o, err := toObject(img)
	if err != nil {
		return nil, err
	}
	o.defaults(object{"Author": "", "Comment": "", "Parent": "", "DockerVersion": ""})
	config := o.sub("Config")
	config.defaults(oldConfig)
	if v < 1050 {
		config.defaults(olderConfig)
	}
	if v < 1045 {
		o.defaults(object{"Container": "", "ContainerConfig": nil})
	}
	if v < 1044 {
		o["VirtualSize"] = img.Size
	}
	return o, nil
}
