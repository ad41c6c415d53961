package sigstore

import (
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	common "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	rekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/tlog"
)

// What cosign's older signatures consist of (cosign, specs/SIGNATURE_SPEC.md).
const (
	typeSimpleSigning = "application/vnd.dev.cosign.simplesigning.v1+json"

	annotationSignature   = "dev.cosignproject.cosign/signature"
	annotationCertificate = "dev.sigstore.cosign/certificate"
	annotationChain       = "dev.sigstore.cosign/chain"
	annotationLog         = "dev.sigstore.cosign/bundle"
	annotationTimestamp   = "dev.sigstore.cosign/rfc3161timestamp"

	criticalType = "cosign container image signature"

	maxPayload    = 64 << 10
	maxAnnotation = 64 << 10
	maxChain      = 8
)

// payload is what such a signature is of.
type payload struct {
	Critical struct {
		Image struct {
			Digest string `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
}

// readCosign reads a layer of a .sig tag: its content was signed, and its
// annotations hold the signature and what proves it.
func readCosign(content []byte, annotations map[string]string) (*entity, error) {
	if len(content) > maxPayload {
		return nil, fmt.Errorf("its payload has %d bytes; %d are the most", len(content), maxPayload)
	}
	for _, name := range []string{annotationSignature, annotationCertificate, annotationChain, annotationLog, annotationTimestamp} {
		if n := len(annotations[name]); n > maxAnnotation {
			return nil, fmt.Errorf("its annotation %s has %d bytes; %d are the most", name, n, maxAnnotation)
		}
	}
	// That is the version whose log entries promise inclusion.
	e := &entity{version: "v0.1", payload: content}
	signature, err := base64.StdEncoding.DecodeString(annotations[annotationSignature])
	if err != nil || len(signature) == 0 {
		return nil, fmt.Errorf("its annotation %s holds no signature in base64", annotationSignature)
	}
	if err := e.readCertificates(annotations[annotationCertificate], annotations[annotationChain]); err != nil {
		return nil, err
	}
	if err := e.readLog(annotations[annotationLog]); err != nil {
		return nil, fmt.Errorf("its annotation %s: %w", annotationLog, err)
	}
	if err := e.readTimestamp(annotations[annotationTimestamp]); err != nil {
		return nil, fmt.Errorf("its annotation %s: %w", annotationTimestamp, err)
	}
	e.signature = e.message(signature)
	return e, nil
}

// message is the signature with the digest of the payload, by the hash that the log
// entry has.
func (e *entity) message(signature []byte) *bundle.MessageSignature {
	hash, name := crypto.SHA256, common.HashAlgorithm_SHA2_256
	if len(e.entries) > 0 {
		switch _, algorithm, _ := e.entries[0].GetHashedRekordDigest(); algorithm {
		case "sha384":
			hash, name = crypto.SHA384, common.HashAlgorithm_SHA2_384
		case "sha512":
			hash, name = crypto.SHA512, common.HashAlgorithm_SHA2_512
		}
	}
	h := hash.New()
	h.Write(e.payload)
	return bundle.NewMessageSignature(h.Sum(nil), name.String(), signature)
}

func (e *entity) readCertificates(leaf, chain string) error {
	if leaf == "" {
		return nil
	}
	block, _ := pem.Decode([]byte(leaf))
	if block == nil || block.Type != "CERTIFICATE" {
		return fmt.Errorf("its annotation %s holds no certificate as PEM", annotationCertificate)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("its certificate cannot be read: %s", clip(err.Error()))
	}
	if err := checkKey(c.PublicKey); err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	e.certificate = c
	e.chain, err = readChain([]byte(chain))
	return err
}

// readChain reads the certificates between the signer's and a root. A root in it
// proves nothing, and does no harm.
func readChain(text []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return all, nil
		}
		text = rest
		if len(all) == maxChain {
			return nil, fmt.Errorf("its chain has more than %d certificates", maxChain)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("its chain cannot be read: %s", clip(err.Error()))
		}
		if err := checkKey(c.PublicKey); err != nil {
			return nil, fmt.Errorf("its chain: %w", err)
		}
		all = append(all, c)
	}
}

// logBundle is the promise of a transparency log (Rekor's signed entry timestamp)
// as cosign writes it.
type logBundle struct {
	SignedEntryTimestamp []byte
	Payload              struct {
		Body           []byte `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"` //nolint:tagliatelle // cosign's name
	}
}

func (e *entity) readLog(text string) error {
	if text == "" {
		return nil
	}
	var b logBundle
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return fmt.Errorf("it is not valid JSON: %s", clip(err.Error()))
	}
	id, err := hex.DecodeString(b.Payload.LogID)
	if err != nil || len(id) == 0 {
		return errors.New("its logID is not in hexadecimal digits")
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(b.Payload.Body, &kind); err != nil {
		return fmt.Errorf("the body of its log entry is not valid JSON: %s", clip(err.Error()))
	}
	t := &rekor.TransparencyLogEntry{
		LogIndex: b.Payload.LogIndex, LogId: &common.LogId{KeyId: id}, IntegratedTime: b.Payload.IntegratedTime,
		KindVersion:       &rekor.KindVersion{Kind: kind.Kind, Version: kind.Version},
		InclusionPromise:  &rekor.InclusionPromise{SignedEntryTimestamp: b.SignedEntryTimestamp},
		CanonicalizedBody: b.Payload.Body,
	}
	if err := checkEntry(t); err != nil {
		return err
	}
	entry, err := tlog.ParseTransparencyLogEntry(t)
	if err != nil {
		return fmt.Errorf("its log entry is not valid: %s", clip(err.Error()))
	}
	e.entries = []*tlog.Entry{entry}
	return nil
}

func (e *entity) readTimestamp(text string) error {
	if text == "" {
		return nil
	}
	var t struct {
		SignedRFC3161Timestamp []byte
	}
	if err := json.Unmarshal([]byte(text), &t); err != nil {
		return fmt.Errorf("it is not valid JSON: %s", clip(err.Error()))
	}
	e.stamps = [][]byte{t.SignedRFC3161Timestamp}
	return checkStamps(e.stamps)
}

// subjectOf says what a payload is a signature of.
func subjectOf(content []byte) (string, error) {
	var p payload
	if err := json.Unmarshal(content, &p); err != nil {
		return "", fmt.Errorf("its payload is not valid JSON: %s", clip(err.Error()))
	}
	if p.Critical.Type != criticalType {
		return "", fmt.Errorf("its payload is a %q, not a %q", clip(p.Critical.Type), criticalType)
	}
	return strings.TrimSpace(p.Critical.Image.Digest), nil
}
