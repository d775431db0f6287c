package server

// watchOOM tells the clients when the kernel ends a process of the container
// for lack of memory, until the cgroup is gone.
func (s *server) watchOOM() {
	f, err := s.group.WatchOOM()
	if err != nil || f == nil {
		return // the exit still tells
	}
	go func() {
		defer f.Close()
		var buf [512]byte
		for {
			if _, err := f.Read(buf[:]); err != nil || !s.group.Exists() {
				return
			}
			s.outOfMemory()
		}
	}()
}

// outOfMemory reports whether the OOM killer has ended a process of the
// container, and tells the clients what they have not been told.
func (s *server) outOfMemory() bool {
	if s.group == nil {
		return false
	}
	n, err := s.group.OOMKills()
	s.mu.Lock()
	more := err == nil && n > s.kills
	if more {
		s.kills = n
	}
	any := s.kills > 0
	s.mu.Unlock()
	if more {
		s.fact("oom")
	}
	return any
}
