// Runs OpenPubkey's own code (github.com/openpubkey/openpubkey/gq) on the vectors beside this file.
//
//	go run . make CLAIMS.json CIC > theirs.json   # keys and tokens of three sizes, and OpenPubkey's proofs of them
//	go run . check < ours.json                    # what OpenPubkey's verifier says to each proof
package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"

	"github.com/openpubkey/openpubkey/gq"
)

// Vector is a key, a token that it signed, and a proof of that.
type Vector struct {
	Bits  int    `json:"bits"`
	E     string `json:"e"`
	N     string `json:"n"`
	Token string `json:"token"`
	Proof string `json:"proof"`
}

var b64 = base64.RawURLEncoding

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func thumbprint(v Vector) string {
	sum := sha256.Sum256([]byte(fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`, v.E, v.N)))
	return b64.EncodeToString(sum[:])
}

func vector(bits int, claims []byte, cic string) Vector {
	key := must(rsa.GenerateKey(rand.Reader, bits))
	v := Vector{Bits: bits, E: "AQAB", N: b64.EncodeToString(key.N.Bytes())}
	signed := b64.EncodeToString([]byte(`{"alg":"RS256","kid":"key","typ":"JWT"}`)) + "." + b64.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	v.Token = signed + "." + b64.EncodeToString(must(rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])))
	proof := must(gq.GQ256SignJWT(&key.PublicKey, []byte(v.Token),
		gq.WithExtraClaim("jkt", thumbprint(v)), gq.WithExtraClaim("cic", cic)))
	v.Proof = string(proof)
	return v
}

func main() {
	var vectors []Vector
	if os.Args[1] == "make" {
		claims := must(os.ReadFile(os.Args[2]))
		for _, bits := range []int{2048, 2049, 3072} {
			vectors = append(vectors, vector(bits, claims, os.Args[3]))
		}
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", " ")
		must(0, out.Encode(vectors))
		return
	}
	must(0, json.NewDecoder(os.Stdin).Decode(&vectors))
	for _, v := range vectors {
		n := new(big.Int).SetBytes(must(b64.DecodeString(v.N)))
		good := must(gq.GQ256VerifyJWT(&rsa.PublicKey{N: n, E: 65537}, []byte(v.Proof)))
		fmt.Println(v.Bits, good)
	}
}
