// load puts a known load on one resource, for tests of quotas. Each command prints one line of JSON when it is done; `serve` puts load on when it is asked to.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var commands = map[string]func([]string) (any, error){
	"cpu": cpu, "memory": memory, "write": write, "fork": fork, "serve": serve,
}

// before is the CPU time that the container had used when this program began and that is not this process's: the runtime starts containers
// within their cgroup. What this process did for the runtime before it became this program counts as its own.
var before = usedByContainer() - used()

func main() {
	log.SetFlags(0)
	var command func([]string) (any, error)
	if len(os.Args) > 1 {
		command = commands[os.Args[1]]
	}
	if command == nil {
		log.Fatal("usage: load cpu|memory|write|fork|serve [flags]; load COMMAND --help")
	}
	// As the first process of a container it gets no default action for signals.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	go func() { <-ended; os.Exit(0) }()
	done, err := command(os.Args[2:])
	if done != nil {
		line, _ := json.Marshal(done)
		fmt.Println(string(line))
	}
	if err != nil {
		log.Fatal(err)
	}
}

// used gives the CPU time of this process so far.
func used() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// usedByContainer gives the CPU time of this container so far, by the kernel's count for its cgroup.
func usedByContainer() time.Duration {
	text, _ := os.ReadFile("/sys/fs/cgroup/cpu.stat")
	for line := range strings.Lines(string(text)) {
		if value, found := strings.CutPrefix(line, "usage_usec "); found {
			if microseconds, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err == nil {
				return time.Duration(microseconds) * time.Microsecond
			}
		}
	}
	return 0
}

type burnt struct {
	CPUSeconds float64 `json:"cpuSeconds"`
	Seconds    float64 `json:"seconds"`
}

// burn computes on so many threads until the time is over, so much CPU time is used or it is stopped, whichever comes first.
func burn(threads int, during, atMost time.Duration, stopped *atomic.Bool) burnt {
	start, at := time.Now(), used()
	var running sync.WaitGroup
	for range threads {
		running.Go(func() {
			number := uint64(1)
			for !stopped.Load() && time.Since(start) < during && used()-at < atMost {
				// Some 100 us between two looks at the clocks.
				for range 100_000 {
					number ^= number << 13
					number ^= number >> 7
					number ^= number << 17
				}
			}
			runtime.KeepAlive(number)
		})
	}
	running.Wait()
	return burnt{CPUSeconds: (used() - at).Seconds(), Seconds: time.Since(start).Seconds()}
}

const forever = 1000 * time.Hour

func cpu(arguments []string) (any, error) {
	flags := flag.NewFlagSet("cpu", flag.ExitOnError)
	threads := flags.Int("threads", 1, "threads that compute")
	during := flags.Duration("for", forever, "how long at most")
	atMost := flags.Duration("cpu-time", forever, "CPU time to use at most")
	stay := flags.Bool("stay", false, "sleep afterwards until SIGTERM")
	_ = flags.Parse(arguments)
	done := burn(*threads, *during, *atMost, new(atomic.Bool))
	return finish(done, *stay)
}

// finish ends a command, or prints what it did and sleeps.
func finish(done any, stay bool) (any, error) {
	if !stay {
		return done, nil
	}
	line, err := json.Marshal(done)
	fmt.Println(string(line))
	if err != nil {
		return nil, err
	}
	select {}
}

func memory(arguments []string) (any, error) {
	flags := flag.NewFlagSet("memory", flag.ExitOnError)
	mebibytes := flags.Int("mib", 64, "MiB of memory to use")
	stay := flags.Bool("stay", false, "keep it until SIGTERM")
	_ = flags.Parse(arguments)
	start := time.Now()
	held := make([][]byte, 0, *mebibytes)
	for range *mebibytes {
		block := make([]byte, 1<<20)
		for page := 0; page < len(block); page += 4096 {
			block[page] = 1
		}
		held = append(held, block)
	}
	done := map[string]any{"mib": len(held), "seconds": time.Since(start).Seconds()}
	result, err := finish(done, *stay)
	runtime.KeepAlive(held)
	return result, err
}

func write(arguments []string) (any, error) {
	flags := flag.NewFlagSet("write", flag.ExitOnError)
	path := flags.String("file", "/data/load", "file to write, over and over")
	block := flags.Int("kib", 256, "KiB for each write, past the page cache")
	blocks := flags.Int64("blocks", 64, "size of the file in such blocks")
	during := flags.Duration("for", 10*time.Second, "how long")
	_ = flags.Parse(arguments)
	file, err := os.OpenFile(*path, os.O_CREATE|os.O_WRONLY|syscall.O_DIRECT, 0o644)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size := *block << 10
	// Direct writes ask for memory that is aligned to the device's blocks.
	const alignment = 4096
	memory := make([]byte, size+alignment)
	offset := alignment - int(uintptr(unsafe.Pointer(&memory[0]))%alignment)
	content := memory[offset : offset+size]
	start := time.Now()
	var written int64
	for time.Since(start) < *during {
		if _, err := file.WriteAt(content, written%*blocks*int64(size)); err != nil {
			return nil, err
		}
		written++
	}
	seconds := time.Since(start).Seconds()
	bytes := written * int64(size)
	return map[string]any{"bytes": bytes, "seconds": seconds, "bytesPerSecond": float64(bytes) / seconds}, nil
}

// fork starts processes that sleep, until it has enough or is refused.
func fork(arguments []string) (any, error) {
	flags := flag.NewFlagSet("fork", flag.ExitOnError)
	count := flags.Int("count", 100, "processes to start")
	stay := flags.Bool("stay", false, "keep them until SIGTERM")
	child := flags.Bool("child", false, "be one of them")
	_ = flags.Parse(arguments)
	if *child {
		time.Sleep(forever)
	}
	started := 0
	refused := ""
	for started < *count {
		command := exec.Command("/proc/self/exe", "fork", "--child")
		command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := command.Start(); err != nil {
			refused = err.Error()
			break
		}
		started++
	}
	return finish(map[string]any{"started": started, "refused": refused}, *stay)
}

// serve answers on a port:
//   - GET / tells that it is there;
//   - GET /cpu?threads=1&seconds=10&cpu-seconds=5 computes until the time is over or so much CPU time is used, and tells;
//   - GET /start computes on one thread until GET /stop;
//   - GET /used tells the CPU time of this program, and what its container had used before it began.
func serve(arguments []string) (any, error) {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	address := flags.String("listen", ":8080", "address")
	_ = flags.Parse(arguments)
	http.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	http.HandleFunc("GET /cpu", func(w http.ResponseWriter, r *http.Request) {
		number := func(name string, unset float64) float64 {
			if value, err := strconv.ParseFloat(r.FormValue(name), 64); err == nil {
				return value
			}
			return unset
		}
		duration := func(name string, unset time.Duration) time.Duration {
			return time.Duration(number(name, unset.Seconds()) * float64(time.Second))
		}
		atMost := duration("cpu-seconds", forever)
		during := time.Second
		if atMost < forever {
			during = forever
		}
		done := burn(int(number("threads", 1)), duration("seconds", during), atMost, new(atomic.Bool))
		_ = json.NewEncoder(w).Encode(done)
	})
	var stop atomic.Pointer[atomic.Bool]
	http.HandleFunc("GET /start", func(http.ResponseWriter, *http.Request) {
		stopped := new(atomic.Bool)
		if stop.CompareAndSwap(nil, stopped) {
			go burn(1, forever, forever, stopped)
		}
	})
	http.HandleFunc("GET /stop", func(http.ResponseWriter, *http.Request) {
		if stopped := stop.Swap(nil); stopped != nil {
			stopped.Store(true)
		}
	})
	http.HandleFunc("GET /used", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]float64{
			"beforeSeconds": before.Seconds(), "programSeconds": used().Seconds(),
		})
	})
	return nil, http.ListenAndServe(*address, nil)
}
