// Checks a ledger's folder, and proofs on standard input, with the Go project's own transparency log packages
// (golang.org/x/mod/sumdb/tlog and note, which the Go distribution carries): none of it is Lepton's code.
package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// witness verifies cosignature/v1 lines (signature type 0x04), which package note leaves to its users.
type witness struct {
	name string
	hash uint32
	key  ed25519.PublicKey
}

func (w witness) Name() string    { return w.name }
func (w witness) KeyHash() uint32 { return w.hash }
func (w witness) Verify(msg, sig []byte) bool {
	if len(sig) != 72 {
		return false
	}
	signed := fmt.Sprintf("cosignature/v1\ntime %d\n%s", binary.BigEndian.Uint64(sig), msg)
	return ed25519.Verify(w.key, []byte(signed), sig[8:])
}

func newWitness(vkey string) (note.Verifier, error) {
	parts := strings.SplitN(vkey, "+", 3)
	data, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(data) != 33 || data[0] != 4 {
		return nil, fmt.Errorf("malformed witness key %s", vkey)
	}
	sum := sha256.Sum256(append([]byte(parts[0]+"\n"), data...))
	return witness{parts[0], binary.BigEndian.Uint32(sum[:]), data[1:]}, nil
}

// files reads tiles from the folder; C2SP's paths leave out the height, which is always 8.
type files struct{ folder string }

func (f files) Height() int                           { return height }
func (f files) SaveTiles(tiles []tlog.Tile, _ [][]byte) {}
func (f files) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(f.folder, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func entries(folder string, size int64) ([][]byte, error) {
	var all [][]byte
	for int64(len(all)) < size {
		number := int64(len(all)) / 256
		width := size - number*256
		if width > 256 {
			width = 256
		}
		tile := tlog.Tile{H: height, L: 0, N: number, W: int(width)}
		path := strings.Replace(tile.Path(), "tile/8/0/", "tile/entries/", 1)
		data, err := os.ReadFile(filepath.Join(folder, path))
		if err != nil {
			return nil, err
		}
		for len(data) > 0 {
			length := int(binary.BigEndian.Uint16(data))
			all = append(all, data[2:2+length])
			data = data[2+length:]
		}
	}
	return all, nil
}

func verify(folder string) error {
	policy, err := os.ReadFile(filepath.Join(folder, "policy"))
	if err != nil {
		return err
	}
	var verifiers []note.Verifier
	for _, line := range strings.Split(string(policy), "\n") {
		words := strings.Fields(line)
		var verifier note.Verifier
		switch {
		case len(words) == 2 && words[0] == "log":
			verifier, err = note.NewVerifier(words[1])
		case len(words) == 3 && words[0] == "witness":
			verifier, err = newWitness(words[2])
		default:
			continue
		}
		if err != nil {
			return err
		}
		verifiers = append(verifiers, verifier)
	}
	signed, err := os.ReadFile(filepath.Join(folder, "checkpoint"))
	if err != nil {
		return err
	}
	opened, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return err
	}
	if len(opened.Sigs) != len(verifiers) {
		return fmt.Errorf("%d of %d signatures are genuine", len(opened.Sigs), len(verifiers))
	}
	// The first line is the origin; package tlog insists on one of its own there.
	_, rest, _ := strings.Cut(opened.Text, "\n")
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + rest))
	if err != nil {
		return err
	}
	reader := tlog.TileHashReader(tree, files{folder})
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("tiles lead to %v, the head says %v: %v", root, tree.Hash, err)
	}
	all, err := entries(folder, tree.N)
	if err != nil {
		return err
	}
	for index, entry := range all {
		hashes, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, int64(index))})
		if err != nil || hashes[0] != tlog.RecordHash(entry) {
			return fmt.Errorf("entry %d is not the one under the head: %v", index, err)
		}
	}
	fmt.Printf("%d entries\n", tree.N)
	return nil
}

type question struct {
	Index, Old, Size int64
	Leaf, OldRoot    []byte
	Root             []byte
	Proof            [][]byte
}

func hash(data []byte) (h tlog.Hash) { copy(h[:], data); return }

func answer() error {
	var questions []question
	if err := json.NewDecoder(bytes.NewBuffer(must(os.ReadFile("/dev/stdin")))).Decode(&questions); err != nil {
		return err
	}
	answers := make([]bool, len(questions))
	for i, q := range questions {
		var proof []tlog.Hash
		for _, each := range q.Proof {
			proof = append(proof, hash(each))
		}
		if q.Leaf != nil {
			answers[i] = tlog.CheckRecord(proof, q.Size, hash(q.Root), q.Index, hash(q.Leaf)) == nil
		} else {
			answers[i] = tlog.CheckTree(proof, q.Size, hash(q.Root), q.Old, hash(q.OldRoot)) == nil
		}
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func main() {
	var err error
	if len(os.Args) > 1 {
		err = verify(os.Args[1])
	} else {
		err = answer()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
