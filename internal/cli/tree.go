package cli

import (
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
	common  bool     // listed first in the main help
	hidden  bool
	build   func(*App) *cobra.Command
}

// group is a management command.
type group struct{ name, short string }

func groups() []group {
	return []group{
		{"builder", "Manage builds"}, {"container", "Manage containers"}, {"context", "Manage contexts"}, {"image", "Manage images"},
		{"network", "Manage networks"}, {"system", "Manage the daemon and its disk space"}, {"volume", "Manage volumes"},
	}
}

// entries lists all commands, those that people use most first.
func entries() []entry {
	return []entry{
		{group: "container", name: "run", top: "run", common: true, build: (*App).runCommand},
		{group: "container", name: "exec", top: "exec", common: true, build: (*App).execCommand},
		{group: "container", name: "ls", top: "ps", aliases: []string{"list", "ps"}, common: true, build: (*App).psCommand},
		{group: "image", name: "build", top: "build", common: true, build: (*App).buildCommand},
		{group: "builder", name: "build", build: (*App).buildCommand},
		{group: "image", name: "pull", top: "pull", common: true, build: (*App).pullCommand},
		{group: "image", name: "push", top: "push", common: true, build: (*App).pushCommand},
		{group: "image", name: "ls", top: "images", aliases: []string{"list"}, common: true, build: (*App).imagesCommand},
		{top: "login", common: true, build: (*App).loginCommand},
		{top: "logout", common: true, build: (*App).logoutCommand},
		{top: "search", common: true, build: (*App).searchCommand},
		{top: "version", common: true, build: (*App).versionCommand},
		{group: "system", name: "info", top: "info", common: true, build: (*App).infoCommand},

		{group: "container", name: "attach", top: "attach", build: (*App).attachCommand},
		{group: "container", name: "commit", top: "commit", build: (*App).commitCommand},
		{group: "container", name: "cp", top: "cp", build: (*App).cpCommand},
		{group: "container", name: "create", top: "create", build: (*App).createCommand},
		{group: "container", name: "diff", top: "diff", build: (*App).diffCommand},
		{group: "container", name: "export", top: "export", build: (*App).exportCommand},
		{group: "container", name: "inspect", build: (*App).containerInspectCommand},
		{group: "container", name: "kill", top: "kill", build: (*App).killCommand},
		{group: "container", name: "logs", top: "logs", build: (*App).logsCommand},
		{group: "container", name: "pause", top: "pause", build: (*App).pauseCommand},
		{group: "container", name: "port", top: "port", build: (*App).portCommand},
		{group: "container", name: "prune", build: (*App).containerPruneCommand},
		{group: "container", name: "rename", top: "rename", build: (*App).renameCommand},
		{group: "container", name: "restart", top: "restart", build: (*App).restartCommand},
		{group: "container", name: "rm", top: "rm", aliases: []string{"remove"}, build: (*App).rmCommand},
		{group: "container", name: "start", top: "start", build: (*App).startCommand},
		{group: "container", name: "stats", top: "stats", build: (*App).statsCommand},
		{group: "container", name: "stop", top: "stop", build: (*App).stopCommand},
		{group: "container", name: "top", top: "top", build: (*App).topCommand},
		{group: "container", name: "unpause", top: "unpause", build: (*App).unpauseCommand},
		{group: "container", name: "update", top: "update", build: (*App).updateCommand},
		{group: "container", name: "wait", top: "wait", build: (*App).waitCommand},

		{group: "image", name: "history", top: "history", build: (*App).historyCommand},
		{group: "image", name: "import", top: "import", build: (*App).importCommand},
		{group: "image", name: "inspect", build: (*App).imageInspectCommand},
		{group: "image", name: "load", top: "load", build: (*App).loadCommand},
		{group: "image", name: "prune", build: (*App).imagePruneCommand},
		{group: "image", name: "rm", top: "rmi", aliases: []string{"rmi", "remove"}, build: (*App).rmiCommand},
		{group: "image", name: "save", top: "save", build: (*App).saveCommand},
		{group: "image", name: "tag", top: "tag", build: (*App).tagCommand},
		{group: "builder", name: "prune", build: (*App).builderPruneCommand},

		{group: "network", name: "connect", build: (*App).networkConnectCommand},
		{group: "network", name: "create", build: (*App).networkCreateCommand},
		{group: "network", name: "disconnect", build: (*App).networkDisconnectCommand},
		{group: "network", name: "inspect", build: (*App).networkInspectCommand},
		{group: "network", name: "ls", aliases: []string{"list"}, build: (*App).networkLsCommand},
		{group: "network", name: "prune", build: (*App).networkPruneCommand},
		{group: "network", name: "rm", aliases: []string{"remove"}, build: (*App).networkRmCommand},

		{group: "volume", name: "create", build: (*App).volumeCreateCommand},
		{group: "volume", name: "inspect", build: (*App).volumeInspectCommand},
		{group: "volume", name: "ls", aliases: []string{"list"}, build: (*App).volumeLsCommand},
		{group: "volume", name: "prune", build: (*App).volumePruneCommand},
		{group: "volume", name: "rm", aliases: []string{"remove"}, build: (*App).volumeRmCommand},

		{group: "system", name: "df", build: (*App).dfCommand},
		{group: "system", name: "dial-stdio", hidden: true, build: (*App).dialStdioCommand},
		{group: "system", name: "events", top: "events", build: (*App).eventsCommand},
		{group: "system", name: "prune", build: (*App).systemPruneCommand},
		{top: "inspect", build: (*App).inspectCommand},
		{top: "doctor", build: (*App).doctorCommand},

		{group: "context", name: "create", build: (*App).contextCreateCommand},
		{group: "context", name: "export", build: (*App).contextExportCommand},
		{group: "context", name: "import", build: (*App).contextImportCommand},
		{group: "context", name: "inspect", build: (*App).contextInspectCommand},
		{group: "context", name: "ls", aliases: []string{"list"}, build: (*App).contextLsCommand},
		{group: "context", name: "rm", aliases: []string{"remove"}, build: (*App).contextRmCommand},
		{group: "context", name: "show", build: (*App).contextShowCommand},
		{group: "context", name: "update", build: (*App).contextUpdateCommand},
		{group: "context", name: "use", build: (*App).contextUseCommand},
	}
}

// rootCommand makes the root without commands.
func (a *App) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: a.name, SilenceUsage: true, SilenceErrors: true, TraverseChildren: true, DisableFlagsInUseLine: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true, DisableDefaultCmd: true},
	}
	root.AddGroup(&cobra.Group{ID: groupCommon, Title: "Common Commands:"}, &cobra.Group{ID: groupManagement, Title: "Management Commands:"},
		&cobra.Group{ID: groupOther, Title: "Commands:"})
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true})
	root.SetFlagErrorFunc(a.flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { a.commandHelp(a.Out, cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { a.commandHelp(a.Err, cmd); return nil })
	return root
}

// treeFor builds as much of the tree as args need: one command, and its group.
func (a *App) treeFor(args []string) (*cobra.Command, bool) {
	all := entries()
	for _, e := range all {
		if e.top == args[0] {
			root := a.rootCommand()
			root.AddCommand(a.makeTop(e))
			return root, true
		}
	}
	for _, g := range groups() {
		if g.name != args[0] {
			continue
		}
		root := a.rootCommand()
		gc := a.groupCommand(g)
		root.AddCommand(gc)
		for _, e := range all {
			if e.group != g.name {
				continue
			}
			// All of a group only if one of them is not named: help, or a mistake.
			if len(args) > 1 && !e.named(args[1]) && a.knows(g.name, args[1]) {
				continue
			}
			gc.AddCommand(a.make(e, e.name))
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

func (a *App) knows(group, name string) bool {
	for _, e := range entries() {
		if e.group == group && e.named(name) {
			return true
		}
	}
	return false
}

// fullTree builds everything, for help and completion.
func (a *App) fullTree() *cobra.Command {
	root := a.rootCommand()
	for _, g := range groups() {
		gc := a.groupCommand(g)
		root.AddCommand(gc)
		for _, e := range entries() {
			if e.group == g.name {
				gc.AddCommand(a.make(e, e.name))
			}
		}
	}
	for _, e := range entries() {
		if e.top != "" {
			root.AddCommand(a.makeTop(e))
		}
	}
	root.AddCommand(a.completionCommand(root))
	return root
}

// make builds e under the given name.
func (a *App) make(e entry, name string) *cobra.Command {
	cmd := e.build(a)
	_, rest, _ := strings.Cut(cmd.Use, " ")
	cmd.Use = strings.TrimSpace(name + " " + rest)
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
func (a *App) makeTop(e entry) *cobra.Command {
	cmd := a.make(e, e.top)
	cmd.GroupID, cmd.Aliases = groupOther, nil
	if e.common {
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

func (a *App) groupCommand(g group) *cobra.Command {
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
			return a.unknownCommand(cmd.CommandPath()+" "+args[0], cmd.UseLine(), similar(args[0], names))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { a.commandHelp(a.Out, cmd); return nil },
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
