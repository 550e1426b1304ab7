// dex, the provider of OpenID Connect, with one user and one client, in memory.
//
// Its last release as a Go module (2.13.0) has no go.mod of its own; go.mod here pins what it is built with. Its command brings every
// database that it can store in, so the server is started here, and its pages, which are files, are written here.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/dexidp/dex/server"
	"github.com/dexidp/dex/storage"
	"github.com/dexidp/dex/storage/memory"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
)

const password = `<form method="post" action="{{ .PostURL }}"><input name="login"><input name="password" type="password"></form>`

func main() {
	listen := flag.String("listen", "", "host:port")
	issuer := flag.String("issuer", "", "URL")
	redirects := flag.String("redirects", "", "where people come back to, by commas")
	flag.Parse()
	if err := serve(*listen, *issuer, strings.Split(*redirects, ",")); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, issuer string, redirects []string) error {
	pages, err := os.MkdirTemp("", "dex-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(pages)
	if err := write(pages); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	logger := logrus.New()
	store := memory.New(logger)
	store = storage.WithStaticPasswords(store, []storage.Password{{
		Email: "anna@example.com", Username: "anna", UserID: "0815", Hash: hash,
	}}, logger)
	store = storage.WithStaticConnectors(store, []storage.Connector{{ID: "local", Type: server.LocalConnector, Name: "Email"}})
	store = storage.WithStaticClients(store, []storage.Client{{
		ID: "atoll", Secret: "client-secret", Name: "Atoll", RedirectURIs: redirects,
	}})
	handler, err := server.NewServer(context.Background(), server.Config{
		Issuer: issuer, Storage: store, SkipApprovalScreen: true, Logger: logger,
		Web: server.WebConfig{Dir: pages, Theme: "plain"}, PrometheusRegistry: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	return http.ListenAndServe(listen, handler)
}

// Writes the pages that it wants to find.
func write(dir string) error {
	for _, folder := range []string{"static", "templates", "themes/plain"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{"approval", "login", "oob", "error", "password"} {
		page := name
		if name == "password" {
			page = password
		}
		if err := os.WriteFile(filepath.Join(dir, "templates", name+".html"), []byte(page), 0o600); err != nil {
			return err
		}
	}
	return nil
}
