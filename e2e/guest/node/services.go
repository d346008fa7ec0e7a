package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Services that ended start again after this time.
const restartAfter = 200 * time.Millisecond

// services are the programs that this process keeps running: a line each in files of the disk and of this node, the name and then the command.
type services struct {
	stopping chan struct{}
	running  sync.WaitGroup
}

func startServices() *services {
	s := &services{stopping: make(chan struct{})}
	for _, file := range []string{"/etc/node/services", seed + "/services"} {
		lines, _ := os.ReadFile(file)
		for line := range strings.Lines(string(lines)) {
			if words := strings.Fields(line); len(words) > 1 {
				s.running.Add(1)
				go s.keep(words[0], words[1:])
			}
		}
	}
	return s
}

// keep runs a service until all are stopped.
func (s *services) keep(name string, words []string) {
	defer s.running.Done()
	log, err := os.OpenFile("/var/log/"+name+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		say("%s: %v", name, err)
		return
	}
	for {
		command := exec.Command(words[0], words[1:]...)
		command.Stdout, command.Stderr = log, log
		command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		// Apart from the root, so that what a service takes can be told.
		if group, err := cgroupOf(name); err == nil {
			defer group.Close()
			command.SysProcAttr.UseCgroupFD, command.SysProcAttr.CgroupFD = true, int(group.Fd())
		} else {
			say("%s has no cgroup of its own: %v", name, err)
		}
		ended, err := start(command)
		if err != nil {
			say("%s: %v", name, err)
			return
		}
		say("%s started", name)
		select {
		case status := <-ended:
			_ = command.Process.Release()
			say("%s ended: exit %d, signal %v", name, status.ExitStatus(), status.Signal())
		case <-s.stopping:
			_ = command.Process.Signal(unix.SIGTERM)
			<-ended
			return
		}
		select {
		case <-s.stopping:
			return
		case <-time.After(restartAfter):
		}
	}
}

func (s *services) stop() {
	close(s.stopping)
	s.running.Wait()
}

func cgroupOf(name string) (*os.File, error) {
	folder := cgroups + "/system"
	if err := os.MkdirAll(folder+"/"+name, 0o755); err != nil {
		return nil, err
	}
	if err := delegateControllers(folder); err != nil {
		return nil, err
	}
	return os.Open(folder + "/" + name)
}

// Process 1 inherits every orphan and has to reap it. One place waits for all children, so that none is waited for twice.
var (
	children      = map[int]chan unix.WaitStatus{}
	childrenGuard sync.Mutex
)

// start starts a command and gives a channel that tells how it ended.
func start(command *exec.Cmd) (<-chan unix.WaitStatus, error) {
	// Held while it starts, so that its end is not seen before it is known.
	childrenGuard.Lock()
	defer childrenGuard.Unlock()
	if err := command.Start(); err != nil {
		return nil, err
	}
	ended := make(chan unix.WaitStatus, 1)
	children[command.Process.Pid] = ended
	return ended, nil
}

// reap reaps children for ever.
func reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.ECHILD) {
			time.Sleep(10 * time.Millisecond)
		}
		if pid <= 0 {
			continue
		}
		childrenGuard.Lock()
		if ended, ours := children[pid]; ours {
			delete(children, pid)
			ended <- status
		}
		childrenGuard.Unlock()
	}
}
