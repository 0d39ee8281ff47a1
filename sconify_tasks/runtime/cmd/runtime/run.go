package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"sconify.local/runtime/internal/attest"
	"sconify.local/runtime/internal/binaryfs"
	"sconify.local/runtime/internal/config"
	"sconify.local/runtime/internal/elfsec"
	"sconify.local/runtime/internal/fspf"
	"sconify.local/runtime/internal/launch"
	"sconify.local/runtime/internal/log"
	"sconify.local/runtime/internal/measure"
	"sconify.local/runtime/internal/shield"
	"sconify.local/runtime/internal/sys"
)

const (
	maxConfigSection = 1 << 20
	defaultBudget    = 64 << 20
)

// varying are the variables of the container that the program may see: they tell where, not what.
var varying = []string{"SCONE_LOG", "SCONE_CAS_ADDR", "SCONE_LAS_ADDR", "SCONE_CONFIG_ID"}

// self is what the running file says about itself. Until measured() gave nil, measurement is only what was signed: hashing
// the enclave takes as long as the way to the CAS, so both are done at once, and nothing starts before both are good.
type self struct {
	config      *config.Config
	sigstruct   *measure.Sigstruct
	measurement [32]byte
	measured    func() error
	image       *elfsec.File
	original    *io.SectionReader
	embedded    *binaryfs.Files
	ahead       *shield.Ahead
}

// run starts the program and returns its exit status. It must be called on the main goroutine: the program dies with the
// thread that started it.
func run(logger *log.Logger) (int, error) {
	runtime.LockOSThread()
	launch.Prepare()
	me, err := inspect()
	if err != nil {
		return 0, err
	}
	if os.Getenv("SCONE_HASH") == "1" || os.Getenv("SCONE_VERSION") == "1" {
		if err := me.measured(); err != nil {
			return 0, err
		}
	}
	if os.Getenv("SCONE_HASH") == "1" {
		fmt.Println(hex.EncodeToString(me.measurement[:]))
		return 0, nil
	}
	if os.Getenv("SCONE_VERSION") == "1" {
		fmt.Println(strings.Join(me.config.Settings(), "\n"))
		fmt.Println("Enclave hash: " + hex.EncodeToString(me.measurement[:]))
	}
	if err := me.config.Check(os.LookupEnv); err != nil {
		return 0, err
	}
	if me.original != nil && !me.config.Binary.Protected {
		me.ahead = shield.CopyAhead(me.mainEntry(), me.original)
	}
	if len(os.Args) > 1 {
		logger.Print(log.Warning, "arguments of the container are ignored: the session holds the command")
	}
	attested := make(chan error, 1)
	var service *attest.Service
	go func() {
		var err error
		service, err = me.configure(logger)
		attested <- err
	}()
	launcher, err := launch.Ready()
	if err != nil {
		return 0, err
	}
	problem := <-attested
	if err := me.measured(); err != nil {
		return 0, err // a modified binary is the reason of whatever else went wrong
	}
	if problem != nil {
		return 0, problem
	}
	manifest, err := me.manifest(service)
	if err != nil {
		return 0, err
	}
	return me.start(logger, launcher, service, manifest)
}

// inspect reads the running file, recomputes its measurement and holds it against SIGSTRUCT.
func inspect() (*self, error) {
	file, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	details, err := file.Stat()
	if err != nil {
		return nil, err
	}
	image, err := elfsec.Open(file, details.Size())
	if err != nil {
		return nil, err
	}
	pages, err := section(image, ".sconify.config", maxConfigSection)
	if err != nil {
		return nil, err
	}
	signature, err := section(image, ".sconify.sig", measure.SigstructSize)
	if err != nil {
		return nil, err
	}
	if pages == nil || signature == nil {
		return nil, errors.New("this is the runtime's stub, started without its supervisor: start the image's entry binary instead")
	}
	if err := image.CheckTable(); err != nil {
		return nil, modified(err)
	}
	me := &self{image: image}
	if me.original, err = image.Section(".sconify.elf"); err != nil {
		return nil, err
	}
	return me, me.verify(pages, signature)
}

func (me *self) verify(pages, signature []byte) (err error) {
	if me.config, err = config.Parse(pages); err != nil {
		return modified(err)
	}
	if me.sigstruct, err = measure.ParseSigstruct(signature); err != nil {
		return modified(err)
	}
	me.measurement = me.sigstruct.EnclaveHash
	me.measured = sync.OnceValue(func() error { return me.measure(pages) })
	go func() { _ = me.measured() }()
	return nil
}

func (me *self) measure(pages []byte) error {
	measured, err := measure.Enclave(me.image, measure.Layout{
		Config: pages, Threads: me.config.Threads, Heap: me.config.Heap, Stack: me.config.Stack,
	})
	if err != nil {
		return modified(err)
	}
	if measured != me.measurement {
		return modified(fmt.Errorf("MRENCLAVE is %x, signed was %x", measured, me.measurement))
	}
	return nil
}

func modified(err error) error {
	return fmt.Errorf("the measured part of the binary was modified (%w): pull or rebuild the image", err)
}

func section(image *elfsec.File, name string, limit int64) ([]byte, error) {
	reader, err := image.Section(name)
	if err != nil || reader == nil {
		return nil, err
	}
	if reader.Size() > limit {
		return nil, modified(fmt.Errorf("section %s is too large", name))
	}
	return io.ReadAll(reader)
}

func (me *self) configure(logger *log.Logger) (*attest.Service, error) {
	if me.config.CASIdentity == nil {
		return nil, errors.New("no CAS is pinned in the measured configuration, so there is nobody to get the session from: rebuild with --cas")
	}
	id := os.Getenv("SCONE_CONFIG_ID")
	if id == "" {
		return nil, errors.New("SCONE_CONFIG_ID is not set: it names the session, as NAMESPACE/SESSION/SERVICE")
	}
	logger.Print(log.Info, "attesting as %x for %s (simulation mode: the host can read the memory of this process)", me.measurement, id)
	service, err := attest.Configure(attest.Enclave{
		Measurement: me.measurement, Sigstruct: me.sigstruct.Raw, CASIdentity: me.config.CASIdentity, ConfigID: id,
	}, os.Getenv("SCONE_CAS_ADDR"), os.Getenv("SCONE_LAS_ADDR"))
	var refusal *attest.Refusal
	switch {
	case errors.As(err, &refusal):
		return nil, fmt.Errorf("attestation failed: %w; session %s, MRENCLAVE %x", err, id, me.measurement)
	case err != nil:
		return nil, fmt.Errorf("attestation failed: %w; check SCONE_CAS_ADDR and that the CAS runs", err)
	}
	logger.Print(log.Info, "configured by session %s (%s)", service.SessionName, service.SessionHash)
	return service, nil
}

// manifest reads the manifest of the session and holds it against the measured configuration.
func (me *self) manifest(service *attest.Service) (*fspf.Manifest, error) {
	if me.config.BinaryFS != "" {
		return me.embeddedManifest(service)
	}
	if service.ManifestPath == "" {
		if me.original == nil {
			return nil, errors.New("the session protects nothing, and the binary does not carry its original: upload the session of this image")
		}
		return fspf.WithMain(me.mainEntry()), nil
	}
	stored, err := readManifest(service.ManifestPath)
	if err != nil {
		return nil, fmt.Errorf("the manifest %s: %w", service.ManifestPath, err)
	}
	manifest, err := fspf.Open(stored, service.Key, service.Tag)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; pull the image again, or upload the session that was made with it", service.ManifestPath, err)
	}
	return manifest, me.checkMain(manifest)
}

func (me *self) checkMain(manifest *fspf.Manifest) error {
	entry, expected := manifest.Entry(me.config.Binary.Path), me.mainEntry()
	if entry == nil || entry.Flags&fspf.FlagMain == 0 || entry.Content != expected.Content || entry.Size != expected.Size ||
		(entry.Class == fspf.ClassEncrypted) != me.config.Binary.Protected {
		return fmt.Errorf("the manifest's %s is not the original that was measured: binary and manifest are of different builds", me.config.Binary.Path)
	}
	return nil
}

// embeddedManifest opens the file system that the binary carries. It is called after the measurement was found good, so
// the root hash is what was signed.
func (me *self) embeddedManifest(service *attest.Service) (*fspf.Manifest, error) {
	if service.ManifestPath != "" {
		return nil, errors.New("the session has an fspf_path and the binary its files embedded: upload the session of this image")
	}
	section, err := me.image.Section(".sconify.fs")
	if err != nil {
		return nil, modified(err)
	}
	if section == nil {
		return nil, modified(errors.New("its section .sconify.fs is missing"))
	}
	if me.embedded, err = binaryfs.Open(section, me.config.BinaryFS); err != nil {
		return nil, modified(err)
	}
	return me.embedded.Manifest, me.checkMain(me.embedded.Manifest)
}

func (me *self) mainEntry() *fspf.Entry {
	return &fspf.Entry{
		Path: me.config.Binary.Path, Kind: fspf.KindFile, Class: fspf.ClassAuthenticated, Flags: fspf.FlagMain,
		Mode: 0o755, Size: uint64(me.config.Binary.Size), Content: me.config.Binary.SHA256,
	}
}

func readManifest(name string) ([]byte, error) {
	fd, errno := sys.OpenReal(name, syscall.O_RDONLY|syscall.O_NONBLOCK)
	if errno != 0 {
		return nil, errno
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	details, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !details.Mode().IsRegular() || details.Size() > fspf.MaxManifest {
		return nil, errors.New("it is no regular file of a sensible size")
	}
	var content bytes.Buffer
	content.Grow(int(details.Size()) + bytes.MinRead)
	_, err = content.ReadFrom(io.LimitReader(file, fspf.MaxManifest))
	return content.Bytes(), err
}

// start resolves the command and runs it.
func (me *self) start(logger *log.Logger, launcher *launch.Launcher, service *attest.Service, manifest *fspf.Manifest) (int, error) {
	var original shield.Original
	if me.original != nil {
		original = me.original
	}
	supervisor, err := shield.New(shield.Settings{
		Manifest: manifest, Key: service.Key, Dlopen: me.config.Dlopen, Original: original, Ahead: me.ahead, Runtime: func() ([32]byte, error) { return measure.Program(me.image) },
		Embedded: me.embedded, Unprotected: service.ManifestPath == "" && me.embedded == nil, Budget: budget(), Log: logger,
	})
	if err != nil {
		return 0, err
	}
	defer supervisor.Close()
	name, err := supervisor.Command(service.Command[0], service.Environment["PATH"], service.WorkingDirectory, me.config.Binary.Path)
	if err != nil {
		return 0, err
	}
	signals := launch.Signals()
	go supervisor.Fetch(me.config.Binary.Path)
	pid, err := launcher.Start(launch.Program{
		Path: name, Arguments: service.Command, Environment: environment(service.Environment),
		Directory: service.WorkingDirectory,
	}, supervisor.Serve)
	if err != nil {
		return 0, err
	}
	debug.SetGCPercent(50) // the supervisor's own memory counts in the container's limit
	status := launch.Wait(pid, signals)
	launch.End()
	return status, nil
}

// environment is the session's, and what tells where the CAS is.
func environment(session map[string]string) []string {
	var result []string
	for name, value := range session {
		result = append(result, name+"="+value)
	}
	for _, name := range varying {
		if value, present := os.LookupEnv(name); present {
			if _, given := session[name]; !given {
				result = append(result, name+"="+value)
			}
		}
	}
	slices.Sort(result)
	return result
}

// budget is how much memory verified files may take: an eighth of the container's limit, at most 64 MiB.
func budget() uint64 {
	limit := uint64(defaultBudget)
	for _, name := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		content, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if value, err := strconv.ParseUint(strings.TrimSpace(string(content)), 10, 64); err == nil {
			limit = min(limit, value/8)
		}
	}
	return limit
}
