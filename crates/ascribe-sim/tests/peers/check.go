// Checks the trees of ascribe bundles and exported ledgers with golang.org/x/mod/sumdb.
//
//	check VKEY PATH...
//
// A PATH is a bundle or a directory of C2SP tlog-tiles. Prints `ok PATH` or `refused PATH: REASON`
// for each, and exits with 4 after a refusal. Checked: the signed checkpoint, every entry's
// inclusion, and of a directory every tile.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// checkpoint opens a signed note; text of a checkpoint is origin, size and root.
func checkpoint(signed []byte, verifier note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() || lines[3] != "" {
		return tree, errors.New("not a checkpoint of this log")
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return tree, err
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

func checkBundle(file string, verifier note.Verifier) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n"))
	if len(lines) < 3 {
		return errors.New("cut off")
	}
	var head struct{ Checkpoint string }
	if err := json.Unmarshal(lines[1], &head); err != nil {
		return err
	}
	tree, err := checkpoint([]byte(head.Checkpoint), verifier)
	if err != nil {
		return err
	}
	for _, line := range lines[2:] {
		var proven struct {
			Entry string
			Index int64
			Proof []string
		}
		if err := json.Unmarshal(line, &proven); err != nil {
			return err
		}
		if proven.Entry == "" {
			continue
		}
		var proof tlog.RecordProof
		for _, step := range proven.Proof {
			raw, err := base64.RawURLEncoding.Strict().DecodeString(step)
			var hash tlog.Hash
			if err != nil || copy(hash[:], raw) != len(hash) {
				return errors.New("not a hash")
			}
			proof = append(proof, hash)
		}
		leaf := tlog.RecordHash([]byte(proven.Entry))
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, proven.Index, leaf); err != nil {
			return fmt.Errorf("entry %d: %w", proven.Index, err)
		}
	}
	return nil
}

// storedPath is the path of a tile under tlog-tiles, which leaves out the height.
func storedPath(tile tlog.Tile) string {
	path := strings.TrimPrefix(tile.Path(), "tile/8/")
	return "tile/" + strings.Replace(path, "data/", "entries/", 1)
}

// tilesOf lists the tiles of a tree of that size: of a partial tile, its newest width.
func tilesOf(size int64) []tlog.Tile {
	var tiles []tlog.Tile
	for _, tile := range tlog.NewTiles(8, 0, size) {
		last := len(tiles) - 1
		if last >= 0 && tiles[last].L == tile.L && tiles[last].N == tile.N {
			tiles[last] = tile
		} else {
			tiles = append(tiles, tile)
		}
	}
	return tiles
}

func checkTree(dir string, verifier note.Verifier) error {
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }
	signed, err := read("checkpoint")
	if err != nil {
		return err
	}
	tree, err := checkpoint(signed, verifier)
	if err != nil {
		return err
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, index := range indexes {
			hashes = append(hashes, stored[index])
		}
		return hashes, nil
	})
	tiles := tilesOf(tree.N)
	var leaves []tlog.Hash
	for _, tile := range tiles {
		if tile.L != 0 {
			continue
		}
		data := tile
		data.L = -1
		entries, err := read(storedPath(data))
		if err != nil {
			return err
		}
		for ; len(entries) >= 2; tile.W-- {
			end := 2 + int(binary.BigEndian.Uint16(entries))
			if end > len(entries) {
				return errors.New("an entry is cut off")
			}
			leaf := tlog.RecordHash(entries[2:end])
			more, err := tlog.StoredHashesForRecordHash(int64(len(leaves)), leaf, reader)
			if err != nil {
				return err
			}
			stored = append(stored, more...)
			leaves = append(leaves, leaf)
			entries = entries[end:]
		}
		if len(entries) != 0 || tile.W != 0 {
			return errors.New("not as many entries as hashes")
		}
	}
	if int64(len(leaves)) != tree.N {
		return errors.New("not as many entries as the checkpoint says")
	}
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("the root is another: %v", err)
	}
	for _, tile := range tiles {
		expected, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			return err
		}
		found, err := read(storedPath(tile))
		if err != nil {
			return err
		}
		if !bytes.Equal(found, expected) {
			return fmt.Errorf("%s is not of this tree", storedPath(tile))
		}
	}
	// As a client does that trusts the checkpoint alone: every proof from the tiles.
	proofs := tlog.TileHashReader(tree, tileReader{dir})
	for index, leaf := range leaves {
		proof, err := tlog.ProveRecord(tree.N, int64(index), proofs)
		if err != nil {
			return err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, int64(index), leaf); err != nil {
			return err
		}
	}
	return nil
}

type tileReader struct{ dir string }

func (r tileReader) Height() int { return 8 }

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := os.ReadFile(filepath.Join(r.dir, storedPath(tile)))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func main() {
	verifier, err := note.NewVerifier(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	code := 0
	for _, path := range os.Args[2:] {
		check := checkBundle
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			check = checkTree
		}
		if err := check(path, verifier); err != nil {
			fmt.Printf("refused %s: %v\n", path, err)
			code = 4
		} else {
			fmt.Printf("ok %s\n", path)
		}
	}
	os.Exit(code)
}
