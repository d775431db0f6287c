package shape

import "gantry/internal/wire"

// Event forms one event. Before 1.52, events of containers and images repeat
// their action and object in status, id and, for containers, from.
func Event(e wire.Event, v int) any {
	if v >= 1052 || e.Type != "container" && e.Type != "image" {
		return e
	}
	o, err := toObject(e)
	if err != nil {
		return e // can't be: an event is strings and numbers
	}
	o["status"], o["id"] = string(e.Action), e.Actor.ID
	if image := e.Actor.Attributes["image"]; e.Type == "container" && image != "" {
		o["from"] = image
	}
	return o
}
