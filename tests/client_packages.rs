//! Proves of each package under client/: it builds as its registry takes it, an empty project that installs that runs the README's example,
//! its own tests pass against the real program, and a restart of the broker costs its callers nothing. And of all of them: one version, one
//! licence, stubs that are what `client/generate` makes, and an example of four lines at most.

#[path = "peers/installed.rs"]
mod installed;
#[path = "peers/packages.rs"]
mod packages;
#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::fs;
use std::path::{Path, PathBuf};

use installed::{Node, Python, copied, npm, version};
use packages::{Dev, TlsBroker, example, first_block, one_at_a_time, restarted_under};
use peers::{Peers, plain, printed, root};

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn python() {
    let _turn = one_at_a_time();
    let peers = Peers::install(&["client-python"]);
    let work = copied(&["client/python"]);
    let package = Python::install(&peers, work.path());
    let tool = || {
        let mut python = peers.command("client-python/bin/python");
        python.current_dir(work.path().join("client/python"));
        python
    };
    let dev = Dev::start();
    let address = dev.address();
    fs::write(package.project().join("example.py"), example("python", "python")).expect("writes");
    let installed = || {
        let mut python = package.command();
        python.env("KEY_BROKER_ADDRESS", &address);
        python
    };
    assert_eq!(printed(installed().arg("example.py")).trim(), "hello");

    // Its types hold, and so do its tests, of what is installed.
    printed(tool().args(["-m", "mypy", "--strict"]));
    let site = printed(installed().args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]));
    let mut tests = tool();
    tests.args(["-m", "pytest", "-q", "-p", "no:cacheprovider"]).env("KEY_BROKER_ADDRESS", &address);
    let tls = TlsBroker::start(&dev);
    tls.tell(&mut tests);
    printed(tests.env("PYTHONPATH", site.trim()));
    tls.was_called();

    let page = docs();
    for (title, says) in [("Data keys", "hello"), ("Values and key pairs", "password")] {
        let (_, section) = page.split_once(&format!("\n## {title}\n")).expect("the section");
        let program = work.path().join("of_the_page.py");
        fs::write(&program, first_block(section, "python")).expect("writes");
        let mut of_the_page = tool();
        of_the_page.arg(program).env("KEY_BROKER_ADDRESS", &address);
        assert_eq!(printed(of_the_page.env("PYTHONPATH", site.trim())).trim(), says);
    }

    let load = |kind: &str| {
        let mut load = installed();
        load.arg(root().join("tests/peers/client-python/load.py")).arg(kind);
        load
    };
    let [package, bare] = restarted_under(dev, [load("package"), load("bare")]);
    package.costs_nothing();
    bare.costs_something();
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn node() {
    let _turn = one_at_a_time();
    let peers = Peers::install(&["client-node"]);
    let work = copied(&["client/node"]);
    let package = Node::install(&peers, work.path());
    let dev = Dev::start();
    let address = dev.address();
    fs::write(package.project().join("example.js"), example("node", "js")).expect("writes");
    let node = || {
        let mut node = package.command();
        node.env("KEY_BROKER_ADDRESS", &address);
        node
    };
    assert_eq!(printed(node().arg("example.js")).trim(), "hello");
    let tls = TlsBroker::start(&dev);
    let mut tests = npm(&peers, &work.path().join("client/node"));
    tls.tell(&mut tests);
    printed(tests.arg("test").env("KEY_BROKER_ADDRESS", &address));
    tls.was_called();

    let program = package.project().join("load.mjs");
    fs::copy(root().join("tests/peers/client-node/load.mjs"), program).expect("copies");
    let mut load = node();
    load.args(["load.mjs", "package"]);
    let [package] = restarted_under(dev, [load]);
    package.costs_nothing();
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn go() {
    let _turn = one_at_a_time();
    let peers = Peers::install(&["client-go"]);
    let work = copied(&["client/go"]);
    let package = work.path().join("client/go");
    let go = |dir: &Path| {
        let mut go = peers.command("client-go/bin/go");
        go.current_dir(dir).env("GOPATH", peers.path("client-go/gopath"));
        go.env("GOCACHE", peers.path("client-go/cache")).env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
        // What is not in the cache of modules is not in go.sum either.
        go.env("GOPROXY", "off").env("GOFLAGS", "-modcacherw");
        go
    };
    printed(go(&package).args(["vet", "./..."]));
    let dev = Dev::start();
    let address = dev.address();
    let tls = TlsBroker::start(&dev);
    let mut tests = go(&package);
    tls.tell(&mut tests);
    printed(tests.args(["test", "-count=1", "./..."]).env("KEY_BROKER_ADDRESS", &address));
    tls.was_called();

    let empty = work.path().join("empty");
    fs::create_dir_all(empty.join("load")).expect("a directory");
    let module = GO_MODULE;
    let version = version();
    let manifest = fs::read_to_string(package.join("go.mod")).expect("a module");
    // Requires what the package does, too, as `go mod tidy` would write it: that asks the network about tests of dependencies.
    let (_, rest) = manifest.split_once('\n').expect("its name is its first line");
    let text = format!("module empty\n{rest}\nrequire {module} v{version}\n");
    fs::write(empty.join("go.mod"), text).expect("writes");
    let proxy = published(&peers, &package, work.path(), &format!("v{version}"));
    fs::copy(package.join("go.sum"), empty.join("go.sum")).expect("copies");
    fs::write(empty.join("main.go"), go_program(&example("go", "go"))).expect("writes");
    fs::copy(root().join("tests/peers/client-go/main.go"), empty.join("load/main.go")).expect("copies");
    let mut build = go(&empty);
    build.args(["build", "-mod=mod", "-o", "built/", "./..."]);
    // A public registry's checksums are of what is public.
    printed(build.env("GOPROXY", format!("file://{}", proxy.display())).env("GONOSUMDB", "*"));
    let run = |name: &str| {
        let mut run = plain(empty.join("built").join(name));
        run.env("KEY_BROKER_ADDRESS", &address);
        run
    };
    assert_eq!(printed(&mut run("empty")).trim(), "hello");
    let mut load = run("load");
    load.arg("package");
    let [package] = restarted_under(dev, [load]);
    package.costs_nothing();
}

/// The module as a proxy of modules has it, a zip with its version before each name; nothing of an earlier one is left in the cache.
/// <https://go.dev/ref/mod#goproxy-protocol>
fn published(peers: &Peers, package: &Path, work: &Path, version: &str) -> PathBuf {
    let cache = peers.path("client-go/gopath/pkg/mod");
    for old in [cache.join("github.com/key-broker"), cache.join("cache/download/github.com/key-broker")] {
        // The first time there is none.
        let _ = fs::remove_dir_all(old);
    }
    let proxy = work.join("proxy");
    let place = proxy.join(GO_MODULE).join("@v");
    fs::create_dir_all(&place).expect("a directory");
    fs::write(place.join("list"), format!("{version}\n")).expect("writes");
    let time = "2026-01-01T00:00:00Z";
    let info = format!(r#"{{"Version":"{version}","Time":"{time}"}}"#);
    fs::write(place.join(format!("{version}.info")), info).expect("writes");
    fs::copy(package.join("go.mod"), place.join(format!("{version}.mod"))).expect("copies");
    let zip = "import os, sys, zipfile\n\
               with zipfile.ZipFile(sys.argv[1], 'w') as module:\n\
               \x20   for folder, _, names in os.walk('.'):\n\
               \x20       for name in names:\n\
               \x20           path = os.path.relpath(os.path.join(folder, name))\n\
               \x20           module.write(path, f'{sys.argv[2]}/{path}')\n";
    let mut python = peers.command("client-go/bin/python");
    python.current_dir(package).args(["-c", zip]).arg(place.join(format!("{version}.zip")));
    printed(python.arg(format!("{GO_MODULE}@{version}")));
    proxy
}

/// The example in a program: it is of the lines that matter.
fn go_program(example: &str) -> String {
    format!(
        "package main\n\nimport (\n\t\"context\"\n\t\"fmt\"\n\n\tkeybroker \"github.com/key-broker/key-broker/client/go\"\n)\n\n\
         func main() {{\n\tctx := context.Background()\n{example}\n\tif err != nil {{\n\t\tpanic(err)\n\t}}\n\
         \tfmt.Println(string(plaintext))\n}}\n"
    )
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn java() {
    let _turn = one_at_a_time();
    let peers = Peers::install(&["client-java"]);
    let work = copied(&["client/java", "proto", "tests/peers/client-java"]);
    let package = work.path().join("client/java");
    let maven = |dir: &Path| {
        let mut maven = plain("mvn");
        maven.current_dir(dir).args(["--quiet", "--offline", "--batch-mode", "-Dstyle.color=never"]);
        maven.arg(format!("-Dmaven.repo.local={}", peers.path("client-java/repository").display()));
        maven
    };
    let dev = Dev::start();
    let address = dev.address();
    // Builds it, runs its tests and puts it where the empty project finds it.
    let tls = TlsBroker::start(&dev);
    let mut build = maven(&package);
    tls.tell(&mut build);
    printed(build.arg("install").env("KEY_BROKER_ADDRESS", &address));
    tls.was_called();
    let version = version();
    for jar in
        [format!("key-broker-client-{version}.jar"), format!("key-broker-client-{version}-sources.jar")]
    {
        assert!(package.join("target").join(&jar).exists(), "{jar}");
    }
    let empty = work.path().join("tests/peers/client-java/empty");
    let sources = empty.join("src/main/java");
    fs::create_dir_all(&sources).expect("a directory");
    fs::write(sources.join("Example.java"), java_program(&example("java", "java"))).expect("writes");
    fs::copy(root().join("tests/peers/client-java/Load.java"), sources.join("Load.java")).expect("copies");
    printed(maven(&empty).arg("package"));
    let run = |class: &str| {
        let mut java = plain("java");
        java.current_dir(&empty).args(["-cp", "target/classes:target/lib/*", class]);
        java.env("KEY_BROKER_ADDRESS", &address);
        java
    };
    assert_eq!(printed(&mut run("Example")).trim(), "hello");
    let mut load = run("Load");
    load.arg("package");
    let [package] = restarted_under(dev, [load]);
    package.costs_nothing();
}

fn java_program(example: &str) -> String {
    format!(
        "import static java.nio.charset.StandardCharsets.UTF_8;\n\nimport io.keybroker.KeyBroker;\nimport java.util.Map;\n\n\
         class Example {{\n  public static void main(String[] arguments) {{\n{example}\n  }}\n}}\n"
    )
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn committed_stubs_are_what_the_command_makes() {
    let peers = Peers::install(&["client-stubs"]);
    let made = tempfile::tempdir().expect("a directory");
    let mut generate = plain(root().join("client/generate"));
    printed(generate.arg(made.path()).env("PEERS_DIR", peers.path("")));
    let folders =
        ["python/src/key_broker/_stubs", "go/keybrokerpb", "node/src/stubs", "node/src/stubs/google/rpc"];
    for folder in folders {
        let names = |top: &Path| {
            let files = fs::read_dir(top.join(folder))
                .expect("a directory")
                .map(|entry| entry.expect("an entry").path());
            let mut names: Vec<_> = files
                .filter(|path| path.is_file())
                .map(|path| path.file_name().expect("a name").to_owned())
                .collect();
            names.sort();
            names
        };
        let (committed, made) = (root().join("client"), made.path());
        assert_eq!(names(&committed), names(made), "{folder}: run client/generate");
        for name in names(made) {
            let text = |top: &Path| fs::read_to_string(top.join(folder).join(&name)).expect("text");
            assert!(text(&committed) == text(made), "{folder}/{}: run client/generate", name.display());
        }
    }
}

/// The program's (Cargo.toml), the packages', the chart's, and that of the images that manifests and pages name.
#[test]
fn all_have_one_version() {
    let version = version();
    for (file, line) in [
        ("deploy/chart/Chart.yaml", format!("version: {version}")),
        ("deploy/chart/Chart.yaml", format!("appVersion: {version}")),
        ("telemetry/registry/registry_manifest.yaml", format!("semconv_version: {version}")),
        ("client/python/pyproject.toml", format!("version = \"{version}\"")),
        ("client/node/package.json", format!("  \"version\": \"{version}\",")),
        ("client/node/package-lock.json", format!("  \"version\": \"{version}\",")),
        ("client/node/src/version.ts", format!("export const VERSION = \"{version}\";")),
        ("client/go/doc.go", format!("const Version = \"{version}\"")),
        ("client/java/pom.xml", format!("  <version>{version}</version>")),
        (
            "client/java/src/main/java/io/keybroker/KeyBroker.java",
            format!("  public static final String VERSION = \"{version}\";"),
        ),
        ("tests/peers/client-java/empty/pom.xml", format!("      <version>{version}</version>")),
    ] {
        let text = fs::read_to_string(root().join(file)).expect(file);
        assert!(text.lines().any(|have| have == line), "{file}: no line {line:?}");
    }
    let changes = fs::read_to_string(root().join("CHANGELOG.md")).expect("the changes");
    let newest = changes.lines().find_map(|line| line.strip_prefix("## ")).expect("a release");
    assert!(newest.starts_with(&format!("{version}, ")), "CHANGELOG.md begins with {newest}");
    let mut named = 0;
    for file in files_in(&["deploy", "docs"]) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for before in ["key-broker:", "newTag: ", "key-broker_", "key-broker-"] {
            for rest in
                text.split(before).skip(1).filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            {
                named += 1;
                assert!(rest.starts_with(&version), "{}: {before}{:.12}", file.display(), rest);
            }
        }
    }
    assert!(named >= 10, "{named}");
}

fn files_in(folders: &[&str]) -> Vec<PathBuf> {
    let mut folders: Vec<_> = folders.iter().map(|folder| root().join(folder)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

#[test]
fn all_have_the_licence() {
    let licence = fs::read(root().join("LICENSE")).expect("a licence");
    for package in PACKAGES {
        let copy = root().join("client").join(package).join("LICENSE");
        assert!(fs::read(&copy).is_ok_and(|copy| copy == licence), "{}", copy.display());
    }
}

#[test]
fn examples_have_four_lines_at_most() {
    let readme = fs::read_to_string(root().join("README.md")).expect("the README");
    let page = docs();
    for (package, language) in [("python", "python"), ("node", "js"), ("go", "go"), ("java", "java")] {
        let example = example(package, language);
        let lines = example.lines().filter(|line| !line.trim().is_empty()).count();
        assert!(lines <= 4, "{package}: {lines} lines:\n{example}");
        assert!(readme.contains(&example), "README.md has another example for {package}");
        assert!(page.contains(&example), "docs/clients.md has another example for {package}");
    }
}

fn docs() -> String {
    fs::read_to_string(root().join("docs/clients.md")).expect("the page")
}

const PACKAGES: [&str; 4] = ["python", "node", "go", "java"];

const GO_MODULE: &str = "github.com/key-broker/key-broker/client/go";
