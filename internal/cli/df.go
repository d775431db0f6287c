package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"gantry/internal/cli/formatter"
	"gantry/internal/client"
	"gantry/internal/wire"
)

func bytesSize(n int64) string { return units.BytesSize(float64(n)) }

func dfCommand(a *App) *cobra.Command {
	var verbose bool
	var format string
	cmd := leaf("df [OPTIONS]", "Show "+a.name+" disk usage", noArgs, func(cmd *cobra.Command, _ []string) error {
		return diskUsage(cmd.Context(), a, verbose, format)
	})
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&format, "format", "", formatUsage)
	return cmd
}

func diskUsage(ctx context.Context, a *App, verbose bool, format string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := map[string][]string{}
	if verbose {
		q["verbose"] = []string{"1"}
	}
	var u system.DiskUsage
	if err := c.Get(ctx, "/system/df", q, &u); err != nil {
		return err
	}
	if !verbose {
		if err := formatter.UsageTable().Render(a.Out, format, formatter.Usage(&u)); err != nil || format != "" {
			return err
		}
		return showBudget(ctx, a, c)
	}
	if format != "" && format != "table" {
		return formatter.Value(a.Out, format, &u)
	}
	return dfVerbose(a.Out, &u)
}

func dfVerbose(w io.Writer, u *system.DiskUsage) error {
	now := time.Now()
	fmt.Fprint(w, "Images space usage:\n\n")
	if i := u.ImageUsage; i != nil {
		t := formatter.ImageTable(formatter.TableOptions{})
		t.Columns = append(t.Columns,
			formatter.Column[*formatter.ImageContext]{Header: "SHARED SIZE", Get: (*formatter.ImageContext).SharedSize},
			formatter.Column[*formatter.ImageContext]{Header: "UNIQUE SIZE", Get: (*formatter.ImageContext).UniqueSize},
			formatter.Column[*formatter.ImageContext]{Header: "CONTAINERS", Get: (*formatter.ImageContext).Containers})
		if err := t.Render(w, "", formatter.Images(i.Items, formatter.ImageOptions{Trunc: true, Now: now})); err != nil {
			return err
		}
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	if i := u.ContainerUsage; i != nil {
		t := formatter.UsageContainerTable()
		if err := t.Render(w, "", formatter.Containers(i.Items, formatter.RowOptions{Trunc: true, Now: now})); err != nil {
			return err
		}
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	if i := u.VolumeUsage; i != nil {
		if err := formatter.UsageVolumeTable().Render(w, "", formatter.UsageVolumes(i.Items)); err != nil {
			return err
		}
	}
	cache := int64(0)
	if u.BuildCacheUsage != nil {
		cache = u.BuildCacheUsage.TotalSize
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(cache)))
	if u.BuildCacheUsage == nil {
		return nil
	}
	return formatter.CacheTable().Render(w, "", formatter.Caches(u.BuildCacheUsage.Items, now))
}

// showBudget says how the disk budget stands, if there is one. A daemon that
// knows none says nothing.
func showBudget(ctx context.Context, a *App, c *client.Client) error {
	res, err := c.Stream(ctx, client.Request{Method: http.MethodGet, Path: "/gantry/disk", Raw: true})
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	return eachJSON(ctx, res.Body, func(b wire.DiskBudget) error {
		if b.High == 0 {
			return nil
		}
		over := ""
		if b.Over {
			over = ": too much"
			if b.Why != "" {
				over += ", " + b.Why
			}
		}
		_, err := fmt.Fprintf(a.Out, "\nDisk budget: %s of %s used by images, build cache and logs%s\n", units.HumanSize(float64(b.Used)), units.HumanSize(float64(b.High)), over)
		return err
	})
}
