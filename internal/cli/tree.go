package cli

import (
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"
)

// Groups of the main help.
const (
	groupCommon     = "common"
	groupManagement = "management"
	groupOther      = "other"
	aliasKey        = "aliases" // annotation: the line under Aliases, $0 is the program
)

// entry is one command: below a group, at the top, or both.
type entry struct {
	group   string   // "" if at the top only
	name    string   // below the group
	top     string   // at the top; "" if it is not there
	aliases []string // below the group
	common  int      // place in the main help's first list, from 1; 0 is not there
	hidden  bool
	build   func(*App) *cobra.Command
}

// group is a management command.
type group struct{ name, short string }

func groups() []group {
	return []group{
		{"checkpoint", "Manage checkpoints"}, {"builder", "Manage builds"}, {"container", "Manage containers"}, {"context", "Manage contexts"}, {"image", "Manage images"}, {"jobs", "Manage background jobs"}, {"manifest", "Manage Docker image manifests and manifest lists"},
		{"network", "Manage networks"}, {"plugin", "Manage plugins"}, {"system", "Manage the daemon and its disk space"}, {"volume", "Manage volumes"},
	}
}

// entries lists all commands, those that people use most first.
func entries() []entry {
	return slices.Concat(containerEntries(), imageEntries(), otherEntries(), pluginEntries())
}

func containerEntries() []entry {
	return []entry{
		{group: "container", name: "run", top: "run", common: 1, build: runCommand},
		{group: "container", name: "exec", top: "exec", common: 2, build: execCommand},
		{group: "container", name: "ls", top: "ps", aliases: []string{"list", "ps"}, common: 3, build: psCommand},
		{group: "container", name: "attach", top: "attach", build: attachCommand},
		{group: "container", name: "commit", top: "commit", build: commitCommand},
		{group: "container", name: "cp", top: "cp", build: cpCommand},
		{group: "container", name: "create", top: "create", build: createCommand},
		{group: "container", name: "diff", top: "diff", build: diffCommand},
		{group: "container", name: "export", top: "export", build: exportCommand},
		{group: "container", name: "inspect", build: containerInspectCommand},
		{group: "container", name: "kill", top: "kill", build: killCommand},
		{group: "container", name: "logs", top: "logs", build: logsCommand},
		{group: "container", name: "pause", top: "pause", build: pauseCommand},
		{group: "container", name: "port", top: "port", build: portCommand},
		{group: "container", name: "prune", build: containerPruneCommand},
		{group: "container", name: "rename", top: "rename", build: renameCommand},
		{group: "container", name: "restart", top: "restart", build: restartCommand},
		{group: "container", name: "rm", top: "rm", aliases: []string{"remove"}, build: rmCommand},
		{group: "container", name: "start", top: "start", build: startCommand},
		{group: "container", name: "stats", top: "stats", build: statsCommand},
		{group: "container", name: "stop", top: "stop", build: stopCommand},
		{group: "container", name: "top", top: "top", build: topCommand},
		{group: "container", name: "unpause", top: "unpause", build: unpauseCommand},
		{group: "container", name: "update", top: "update", build: updateCommand},
		{group: "container", name: "wait", top: "wait", build: waitCommand},
		{group: "checkpoint", name: "create", build: checkpointCreateCommand},
		{group: "checkpoint", name: "ls", aliases: []string{"list"}, build: checkpointListCommand},
		{group: "checkpoint", name: "rm", aliases: []string{"remove"}, build: checkpointRemoveCommand},
	}
}

func imageEntries() []entry {
	return []entry{
		{group: "image", name: "build", top: "build", common: 4, build: buildCommand},
		{group: "builder", name: "build", build: buildCommand},
		{group: "image", name: "pull", top: "pull", common: 5, build: pullCommand},
		{group: "image", name: "push", top: "push", common: 6, build: pushCommand},
		{group: "image", name: "ls", top: "images", aliases: []string{"list"}, common: 7, build: imagesCommand},
		{group: "image", name: "history", top: "history", build: historyCommand},
		{group: "image", name: "import", top: "import", build: importCommand},
		{group: "image", name: "inspect", build: imageInspectCommand},
		{group: "image", name: "load", top: "load", build: loadCommand},
		{group: "image", name: "pin", build: imagePinCommand},
		{group: "image", name: "prune", build: imagePruneCommand},
		{group: "image", name: "unpin", build: imageUnpinCommand},
		{group: "image", name: "bootstrap", build: imageBootstrapCommand},
		{group: "image", name: "convert", build: imageConvertCommand},
		{group: "image", name: "diff", build: imageDiffCommand},
		{group: "image", name: "verify", build: imageVerifyCommand},
		{group: "image", name: "rm", top: "rmi", aliases: []string{"rmi", "remove"}, build: rmiCommand},
		{group: "image", name: "save", top: "save", build: saveCommand},
		{group: "image", name: "tag", top: "tag", build: tagCommand},
		{group: "manifest", name: "annotate", build: manifestAnnotateCommand},
		{group: "manifest", name: "create", build: manifestCreateCommand},
		{group: "manifest", name: "inspect", build: manifestInspectCommand},
		{group: "manifest", name: "push", build: manifestPushCommand},
		{group: "manifest", name: "rm", build: manifestRmCommand},
		{group: "builder", name: "prune", build: builderPruneCommand},
	}
}

func otherEntries() []entry {
	return []entry{
		{top: "login", common: 8, build: loginCommand},
		{top: "logout", common: 9, build: logoutCommand},
		{top: "search", common: 10, build: searchCommand},
		{top: "version", common: 11, build: versionCommand},
		{group: "system", name: "info", top: "info", common: 12, build: infoCommand},
		{group: "network", name: "connect", build: networkConnectCommand},
		{group: "network", name: "create", build: networkCreateCommand},
		{group: "network", name: "disconnect", build: networkDisconnectCommand},
		{group: "network", name: "inspect", build: networkInspectCommand},
		{group: "network", name: "ls", aliases: []string{"list"}, build: networkLsCommand},
		{group: "network", name: "prune", build: networkPruneCommand},
		{group: "network", name: "rm", aliases: []string{"remove"}, build: networkRmCommand},
		{group: "volume", name: "clone", build: volumeCloneCommand},
		{group: "volume", name: "export", build: volumeExportCommand},
		{group: "volume", name: "import", build: volumeImportCommand},
		{group: "volume", name: "snapshot", build: volumeSnapshotCommand},
		{group: "volume", name: "create", build: volumeCreateCommand},
		{group: "volume", name: "inspect", build: volumeInspectCommand},
		{group: "volume", name: "ls", aliases: []string{"list"}, build: volumeLsCommand},
		{group: "volume", name: "prune", build: volumePruneCommand},
		{group: "volume", name: "rm", aliases: []string{"remove"}, build: volumeRmCommand},
		{group: "system", name: "df", build: dfCommand},
		{group: "jobs", name: "ls", aliases: []string{"list"}, build: jobsCommand},
		{group: "jobs", name: "wait", build: jobWaitCommand},
		{group: "jobs", name: "cancel", build: jobCancelCommand},
		{group: "system", name: "dial-stdio", hidden: true, build: dialStdioCommand},
		{group: "system", name: "upgrade", build: upgradeCommand},
		{group: "system", name: "events", top: "events", build: eventsCommand},
		{group: "system", name: "prune", build: systemPruneCommand},
		{top: "inspect", build: inspectCommand},
		{top: "doctor", build: doctorCommand},
		{group: "context", name: "create", build: contextCreateCommand},
		{group: "context", name: "export", build: contextExportCommand},
		{group: "context", name: "import", build: contextImportCommand},
		{group: "context", name: "inspect", build: contextInspectCommand},
		{group: "context", name: "ls", aliases: []string{"list"}, build: contextLsCommand},
		{group: "context", name: "rm", aliases: []string{"remove"}, build: contextRmCommand},
		{group: "context", name: "show", build: contextShowCommand},
		{group: "context", name: "update", build: contextUpdateCommand},
		{group: "context", name: "use", build: contextUseCommand},
	}
}

// rootCommand makes the root without commands.
func rootCommand(a *App) *cobra.Command {
	root := &cobra.Command{
		Use: a.name, SilenceUsage: true, SilenceErrors: true, TraverseChildren: true, DisableFlagsInUseLine: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true, DisableDefaultCmd: true},
	}
	root.AddGroup(&cobra.Group{ID: groupCommon, Title: "Common Commands:"}, &cobra.Group{ID: groupManagement, Title: "Management Commands:"},
		&cobra.Group{ID: groupOther, Title: "Commands:"})
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true})
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { commandHelp(a, a.Out, cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { commandHelp(a, a.Err, cmd); return nil })
	return root
}

// treeFor builds as much of the tree as args need: one command, and its group.
func treeFor(a *App, args []string) (*cobra.Command, bool) {
	all := entries()
	for _, e := range all {
		if e.top == args[0] {
			root := rootCommand(a)
			root.AddCommand(makeTop(a, e))
			return root, true
		}
	}
	for _, g := range groups() {
		if g.name != args[0] {
			continue
		}
		root := rootCommand(a)
		gc := groupCommand(a, g)
		root.AddCommand(gc)
		for _, e := range all {
			if e.group != g.name {
				continue
			}
			// All of a group only if one of them is not named: help, or a mistake.
			if len(args) > 1 && !e.named(args[1]) && inGroup(a, g.name, args[1]) {
				continue
			}
			gc.AddCommand(makeCommand(a, e, e.name))
		}
		return root, true
	}
	return nil, false
}

func (e entry) named(s string) bool {
	if e.name == s {
		return true
	}
	for _, n := range e.aliases {
		if n == s {
			return true
		}
	}
	return false
}

func inGroup(a *App, group, name string) bool {
	for _, e := range entries() {
		if e.group == group && e.named(name) {
			return true
		}
	}
	return false
}

// fullTree builds everything, for help and completion.
func fullTree(a *App) *cobra.Command {
	root := rootCommand(a)
	for _, g := range groups() {
		gc := groupCommand(a, g)
		root.AddCommand(gc)
		for _, e := range entries() {
			if e.group == g.name {
				gc.AddCommand(makeCommand(a, e, e.name))
			}
		}
	}
	for _, e := range entries() {
		if e.top != "" {
			root.AddCommand(makeTop(a, e))
		}
	}
	root.AddCommand(completionCommand(a, root))
	return root
}

// make builds e under the given name.
func makeCommand(a *App, e entry, name string) *cobra.Command {
	cmd := e.build(a)
	_, rest, _ := strings.Cut(cmd.Use, " ")
	cmd.Use = strings.TrimSpace(name + " " + rest)
	completeObjects(a, cmd, e.group)
	cmd.Hidden = e.hidden
	if name == e.name && e.group != "" {
		cmd.Aliases = e.aliases
	}
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[aliasKey] = aliasLine(e)
	addHelpFlag(cmd)
	return cmd
}

// makeTop builds e as it stands at the top.
func makeTop(a *App, e entry) *cobra.Command {
	cmd := makeCommand(a, e, e.top)
	cmd.GroupID, cmd.Aliases = groupOther, nil
	if e.common > 0 {
		cmd.GroupID = groupCommon
	}
	return cmd
}

// addHelpFlag defines --help, and -h where it is free.
func addHelpFlag(cmd *cobra.Command) {
	if cmd.Flags().ShorthandLookup("h") != nil {
		cmd.Flags().Bool("help", false, "Print usage")
		return
	}
	cmd.Flags().BoolP("help", "h", false, "Print usage")
	_ = cmd.Flags().MarkShorthandDeprecated("help", "use --help")
}

// aliasLine lists all names of a command that has several.
func aliasLine(e entry) string {
	var names []string
	if e.group != "" {
		names = append(names, "$0 "+e.group+" "+e.name)
		for _, n := range e.aliases {
			names = append(names, "$0 "+e.group+" "+n)
		}
	}
	if e.top != "" {
		names = append(names, "$0 "+e.top)
	}
	if len(names) < 2 {
		return ""
	}
	return strings.Join(names, ", ")
}

func groupCommand(a *App, g group) *cobra.Command {
	cmd := &cobra.Command{
		Use: g.name, Short: g.short, DisableFlagsInUseLine: true, GroupID: groupManagement,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var names []string
			for _, e := range entries() {
				if e.group == g.name && !e.hidden {
					names = append(names, e.name)
				}
			}
			return unknownCommand(a, cmd.CommandPath()+" "+args[0], cmd.UseLine(), similar(args[0], names))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { commandHelp(a, a.Err, cmd); return nil },
	}
	addHelpFlag(cmd)
	return cmd
}

// topNames lists what may stand first on the command line.
func topNames() []string {
	names := []string{"completion"}
	for _, g := range groups() {
		names = append(names, g.name)
	}
	for _, e := range entries() {
		if e.top != "" {
			names = append(names, e.top)
		}
	}
	sort.Strings(names)
	return names
}
