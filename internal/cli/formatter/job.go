package formatter

import (
	"fmt"
	"strconv"
	"time"

	"github.com/docker/go-units"

	"gantry/internal/id"
	"gantry/internal/wire"
)

// JobContext is a row of jobs ls.
type JobContext struct {
	j   wire.Job
	now time.Time
}

// Jobs makes rows of list.
func Jobs(list []wire.Job, now time.Time) []*JobContext {
	rows := make([]*JobContext, 0, len(list))
	for _, j := range list {
		rows = append(rows, &JobContext{j, now})
	}
	return rows
}

// JobTable describes jobs ls.
func JobTable() Table[*JobContext] {
	return Table[*JobContext]{
		Columns: []Column[*JobContext]{
			{"JOB ID", (*JobContext).ID}, {"KIND", (*JobContext).Kind}, {"STATE", (*JobContext).State}, {"STARTED", (*JobContext).Started},
			{"PROGRESS", (*JobContext).Progress}, {"REMOVED", (*JobContext).Removed}, {"RECLAIMED", (*JobContext).Reclaimed},
		},
		Headers: map[string]string{
			"ID": "JOB ID", "Kind": "KIND", "State": "STATE", "Started": "STARTED", "Progress": "PROGRESS", "Removed": "REMOVED", "Reclaimed": "RECLAIMED", "Error": "ERROR",
		},
	}
}

// ID is the job's, short.
func (c *JobContext) ID() string { return id.Short(c.j.ID) }

// Kind is what the job does.
func (c *JobContext) Kind() string { return c.j.Kind }

// State is running, done, failed or cancelled.
func (c *JobContext) State() string { return string(c.j.State) }

// Started is how long ago the job began.
func (c *JobContext) Started() string {
	return units.HumanDuration(c.now.Sub(c.j.Started)) + " ago"
}

// Progress is the step that the job is at.
func (c *JobContext) Progress() string {
	p := c.j.Progress
	if p.Steps == 0 || p.Doing == "" {
		return ""
	}
	return fmt.Sprintf("%d/%d %s", p.Step, p.Steps, p.Doing)
}

// Removed counts what was removed.
func (c *JobContext) Removed() string { return strconv.Itoa(c.j.Progress.Removed) }

// Reclaimed is the disk space that was.
func (c *JobContext) Reclaimed() string { return units.HumanSize(float64(c.j.Progress.SpaceReclaimed)) }

// Error is why the job failed.
func (c *JobContext) Error() string { return c.j.Error }
