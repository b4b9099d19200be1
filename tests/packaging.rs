//! Proves: one program makes one image, by digest, and one Debian package; the image is what its Dockerfile says; a program that is not
//! static, or that tells of the building machine, is refused; what a program says that it is made of is what is linked. The unit of deploy/systemd is read by systemd without a complaint and is
//! exposed no further than 2.0; its user, folders and configuration fit together.

#[path = "support/manifests.rs"]
mod manifests;
mod peers;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Output};

use manifests::{deploy, list, text};
use peers::{Peers, output, plain, printed, trivy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn script(path: &str) -> Command {
    let mut command = plain(deploy().join(path));
    command.env("SOURCE_DATE_EPOCH", "1700000000");
    command
}

fn sha256(path: &Path) -> String {
    hex::encode(Sha256::digest(fs::read(path).expect("it is there")))
}

/// An image of something small in place of the program.
fn image(dir: &Path) -> String {
    fs::create_dir_all(dir.join("rootfs")).expect("it is made");
    fs::write(dir.join("rootfs/key-broker"), "program").expect("writes");
    let mut tar = plain("tar");
    tar.args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--file"])
        .arg(dir.join("rootfs.tar"));
    printed(tar.arg("--directory").arg(dir.join("rootfs")).arg("."));
    printed(script("image/oci").arg(dir)).trim().to_owned()
}

#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn one_root_makes_one_image() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let digest = image(one.path());
    assert_eq!(digest, image(two.path()));
    let blobs = one.path().join("oci/blobs/sha256");
    let read = |digest: &Value| -> Vec<u8> {
        let hash = digest["digest"].as_str().and_then(|it| it.strip_prefix("sha256:")).expect("a digest");
        let content = fs::read(blobs.join(hash)).expect("it is there");
        assert_eq!(content.len() as u64, digest["size"].as_u64().expect("a size"));
        content
    };
    for blob in fs::read_dir(&blobs).expect("it is there") {
        let blob = blob.expect("it is read").path();
        assert!(blob.ends_with(sha256(&blob)), "{}", blob.display());
    }
    let index: Value =
        serde_json::from_slice(&fs::read(one.path().join("oci/index.json")).expect("there")).expect("JSON");
    assert_eq!(index["manifests"][0]["digest"], json!(digest));
    let manifest: Value = serde_json::from_slice(&read(&index["manifests"][0])).expect("JSON");
    let layer = read(&manifest["layers"][0]);
    let config: Value = serde_json::from_slice(&read(&manifest["config"])).expect("JSON");
    assert_eq!(
        config["rootfs"]["diff_ids"],
        json!([format!("sha256:{}", sha256(&one.path().join("rootfs.tar")))])
    );
    assert!(layer.starts_with(&[0x1f, 0x8b]), "compressed");

    // As the Dockerfile says.
    let dockerfile = text("image/Dockerfile");
    let last = dockerfile.split("FROM scratch").nth(1).expect("the last stage").replace("\\\n", "");
    let said = |word: &str| {
        let line =
            last.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_else(|| panic!("no {word}"));
        line.trim().to_owned()
    };
    let config = &config["config"];
    assert_eq!(config["User"], json!(said("USER")));
    for (word, key) in [("ENTRYPOINT", "Entrypoint"), ("CMD", "Cmd")] {
        assert_eq!(config[key], serde_json::from_str::<Value>(&said(word)).expect("JSON"));
    }
    let labels = said("LABEL");
    for (name, value) in config["Labels"].as_object().expect("labels") {
        assert!(labels.contains(&format!("{name}={value}")), "{name}: {labels}");
    }
    assert_eq!(
        labels.matches("org.opencontainers").count(),
        config["Labels"].as_object().expect("labels").len()
    );
}

/// For another processor than this machine's, image and package say so.
#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn a_program_for_another_processor_is_packed_as_that() {
    for (arch, theirs) in [("x86_64", "amd64"), ("aarch64", "arm64")] {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("rootfs.tar"), "").expect("writes");
        printed(script("image/oci").env("ARCH", arch).arg(dir.path()));
        let read = |path: &Path| -> Value {
            serde_json::from_slice(&fs::read(path).expect("it is there")).expect("JSON")
        };
        let blob = |digest: &Value| {
            let hash = digest["digest"].as_str().and_then(|it| it.strip_prefix("sha256:")).expect("a digest");
            read(&dir.path().join("oci/blobs/sha256").join(hash))
        };
        let image = read(&dir.path().join("oci/index.json"))["manifests"][0].clone();
        let config = blob(&blob(&image)["config"]);
        assert_eq!(
            (&image["platform"]["architecture"], &config["architecture"]),
            (&json!(theirs), &json!(theirs))
        );
        let (program, licences) = (dir.path().join("program"), deploy().join("../LICENSE"));
        fs::write(&program, "program").expect("writes");
        let out = dir.path().join("out");
        printed(script("systemd/deb").env("ARCH", arch).arg(program).arg(licences).arg("1.2.3").arg(&out));
        let made = out.join(format!("key-broker_1.2.3_{theirs}.deb"));
        assert_eq!(printed(plain("dpkg-deb").arg("--field").arg(made).arg("Architecture")).trim(), theirs);
    }
}

/// The program of the tests is linked to libraries that the image has not.
#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn a_program_that_is_not_static_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut pack = script("image/rootfs");
    let refused =
        output(pack.arg(env!("CARGO_BIN_EXE_key-broker")).arg(deploy().join("../LICENSE")).arg(dir.path()));
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not static"), "{refused:?}");
    assert!(!dir.path().join("rootfs.tar").exists());
}

fn tree(edges: &str) -> Vec<[String; 2]> {
    let mut tree = plain("cargo");
    tree.args(["tree", "--locked", "-p", "key-broker", "-e", edges, "--target", "x86_64-unknown-linux-gnu"]);
    let lines = printed(tree.args(["--prefix", "none", "--format", "{p}"]).current_dir(deploy()));
    let mut all: Vec<_> = lines
        .lines()
        .map(|line| {
            let (name, rest) = line.split_once(" v").expect("a version");
            [name, rest.split(' ').next().unwrap_or(rest)].map(str::to_owned)
        })
        .collect();
    all.sort();
    all.dedup();
    assert!(all.len() > 100 && all.iter().all(|[name, _]| name != "ring" && name != "kms-emulator"));
    all
}

/// cargo metadata names as linked in what tests need, a second cryptography provider among it: scanners would say so of programs.
#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn a_program_names_what_is_linked_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let [listed, program] = ["listed", "program"].map(|name| dir.path().join(name));
    let made = output(script("image/linked").args(["program", "x86_64-unknown-linux-gnu"]));
    assert!(made.status.success(), "{made:?}");
    let mut text = String::new();
    flate2::read::ZlibDecoder::new(&*made.stdout).read_to_string(&mut text).expect("it is compressed");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let names = list_of(&told["packages"]);
    assert_eq!(names, tree("normal,build"));
    let packages = list(&told["packages"]);
    let runs: Vec<_> = packages.iter().zip(&names).filter(|(it, _)| it["kind"] != "build").collect();
    assert_eq!(runs.into_iter().map(|(_, name)| name.clone()).collect::<Vec<_>>(), tree("normal"));
    let roots: Vec<_> = packages.iter().filter(|it| it["root"] == true).collect();
    assert!(roots.len() == 1 && roots[0]["name"] == "key-broker", "{roots:?}");
    // Whoever reads it gets from the root to all of them.
    let (mut seen, mut next) =
        (BTreeSet::new(), vec![names.iter().position(|[name, _]| name == "key-broker").expect("it")]);
    while let Some(place) = next.pop() {
        if seen.insert(place) {
            let needs = list(&packages[place]["dependencies"]).iter();
            next.extend(needs.map(|it| usize::try_from(it.as_u64().expect("a place")).expect("small")));
        }
    }
    assert_eq!(seen.len(), names.len());

    // As deploy/image/build puts it there.
    fs::write(&listed, &made.stdout).expect("writes");
    printed(
        plain("objcopy")
            .arg("--add-section")
            .arg(format!(".dep-v0={}", listed.display()))
            .arg("/bin/true")
            .arg(&program),
    );
    assert!(output(&mut plain(&program)).status.success(), "it runs");
}

fn list_of(packages: &Value) -> Vec<[String; 2]> {
    let text = |it: &Value| it.as_str().expect("text").to_owned();
    list(packages).iter().map(|it| ["name", "version"].map(|key| text(&it[key]))).collect()
}

#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn the_sbom_names_what_is_linked_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("sbom.json");
    let component =
        |[name, version]: &[String; 2]| json!({ "name": name, "version": version, "bom-ref": name });
    let tree = tree("normal");
    let (own, mut others): (Vec<_>, Vec<_>) =
        tree.iter().map(component).partition(|it| it["name"] == "key-broker");
    others.push(component(&["ring".to_owned(), "0.17.14".to_owned()]));
    let sbom = json!({
        "metadata": { "component": own[0] },
        "components": others,
        "dependencies": [{ "ref": "key-broker", "dependsOn": ["ring", "tokio"] }, { "ref": "ring" }, { "ref": "tokio" }],
    });
    fs::write(&file, sbom.to_string()).expect("writes");
    let done = output(script("image/linked").args(["sbom", "x86_64-unknown-linux-gnu"]).arg(&file));
    assert!(done.status.success(), "{done:?}");
    let told: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(list_of(&told["components"]).len() + 1, tree.len());
    assert_eq!(
        told["dependencies"],
        json!([{ "ref": "key-broker", "dependsOn": ["tokio"] }, { "ref": "tokio" }])
    );
}

/// A release's sums and signature are checked with what docs/kubernetes.md shows, and not after a byte has changed.
#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn a_release_is_checked_as_the_page_says() {
    let page = text("../docs/kubernetes.md");
    let shown = |begins: &str| -> String {
        let block = page.split("```sh\n").find(|block| block.starts_with(begins)).expect("a block");
        block.split("```").next().expect("a block").to_owned()
    };
    let dir = tempfile::tempdir().expect("a folder");
    let sh = |lines: &str| output(plain("sh").args(["-ec", lines]).current_dir(dir.path()));
    assert!(sh("mkdir -p deploy target").status.success());
    std::os::unix::fs::symlink(deploy().join("sign"), dir.path().join("deploy/sign")).expect("a link");
    let files = dir.path().join("target/release-files");
    fs::create_dir(&files).expect("a folder");
    for file in ["key-broker-1.2.3.tgz", "image-digest"] {
        fs::write(files.join(file), file).expect("writes");
    }
    assert!(sh("cd target/release-files && sha256sum * > SHA256SUMS").status.success());
    assert!(sh(&shown("openssl ecparam")).status.success());
    assert!(sh("cp public.pem target/release-files").status.success());
    let check = format!("cd target/release-files\n{}", shown("base64"));
    assert!(sh(&check).status.success(), "{:?}", sh(&check));
    fs::write(files.join("image-digest"), "another").expect("writes");
    assert!(!sh(&check).status.success(), "another file");
    assert!(!sh("deploy/sign signing.pem target/release-files").status.success(), "it signs no other file");
    assert!(sh("cd target/release-files && sha256sum key* image* > SHA256SUMS").status.success());
    let refused = sh(&check);
    assert!(!refused.status.success(), "another list");
    assert!(String::from_utf8_lossy(&refused.stdout).contains("Verification failure"), "{refused:?}");
}

/// With what deploy/image/build gives to cargo, a workspace makes one program in two folders, code that is generated while it is built included,
/// and neither folder's name is in it. In RUSTFLAGS a path would be in what cargo names things by.
#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn two_folders_make_one_program() {
    let build = text("image/build");
    let flags = build.lines().find_map(|line| line.strip_prefix("export RUSTFLAGS=\"")).expect("flags");
    let flags = flags.split('"').next().expect("flags");
    assert!(!flags.contains('$') && !flags.contains('/'), "{flags}");
    for wrapper in ["RUSTC_WRAPPER=\"$PWD/deploy/image/rustc\"", "_LINKER=$PWD/deploy/image/linker"] {
        assert!(build.contains(wrapper), "{wrapper}");
    }
    let made = ["one", "another/place"].map(|folder| {
        let dir = tempfile::tempdir().expect("a folder");
        let top = dir.path().join(folder);
        let put = |file: &str, text: &str| {
            fs::create_dir_all(top.join(file).parent().expect("a folder")).expect("a folder");
            fs::write(top.join(file), text).expect("writes");
        };
        put("Cargo.toml", "[package]\nname = \"it\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\npart = { path = \"part\" }\n\
                           [profile.release]\nlto = \"fat\"\ncodegen-units = 1\nstrip = \"symbols\"\n[workspace]\n");
        put("src/main.rs", "fn main() { println!(\"{}\", part::at(std::env::args().count())); }");
        put("part/Cargo.toml", "[package]\nname = \"part\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        put("part/src/lib.rs", "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));");
        put("part/build.rs", "fn main() { std::fs::write(format!(\"{}/made.rs\", std::env::var(\"OUT_DIR\").unwrap()), \
                              \"pub fn at(place: usize) -> u8 { [1, 2][place] }\").unwrap(); }");
        let target = "x86_64-unknown-linux-gnu";
        let mut compile = plain("cargo");
        compile.args(["build", "--quiet", "--offline", "--release", "--target", target]).current_dir(&top);
        compile.env("CARGO_TARGET_DIR", top.join("target")).env("RUSTFLAGS", flags).env("KEY_BROKER_CC", "cc");
        let here = deploy().join("image");
        compile.env("KEY_BROKER_TOP", &top).env_remove("CARGO_ENCODED_RUSTFLAGS");
        // One of them where the repository is, and one elsewhere.
        let tools = if folder == "one" { here } else { elsewhere(&top, &here) };
        compile.env("RUSTC_WRAPPER", tools.join("rustc"));
        compile.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", tools.join("linker"));
        printed(&mut compile);
        fs::read(top.join("target").join(target).join("release/it")).expect("it is there")
    });
    assert_eq!(hex::encode(Sha256::digest(&made[0])), hex::encode(Sha256::digest(&made[1])));
    for (path, is_there) in
        [(&b"./target/x86_64-unknown-linux-gnu/release/build/part-"[..], true), (b"another/place", false)]
    {
        assert_eq!(memchr::memmem::find(&made[1], path).is_some(), is_there);
    }
}

/// Links to the tools at another place.
fn elsewhere(top: &Path, tools: &Path) -> std::path::PathBuf {
    for tool in ["rustc", "linker"] {
        std::os::unix::fs::symlink(tools.join(tool), top.join(tool)).expect("a link");
    }
    top.to_owned()
}

/// For aarch64 the linker is asked for a program at a fixed address, and makes one that may be anywhere.
#[test]
fn a_static_program_is_position_independent() {
    let mut link = script("image/linker");
    link.env("KEY_BROKER_CC", "echo").args(["-o", "a b", "-static", "-no-pie", "x.o", "-static-pie"]);
    assert_eq!(printed(&mut link), "-o a b -static-pie x.o -static-pie\n");
}

/// A folder that has other files than a release is not emptied.
#[test]
fn a_release_removes_nothing_of_others() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("precious"), "").expect("writes");
    let refused = output(script("release").arg(dir.path()));
    assert!(!refused.status.success() && dir.path().join("precious").exists(), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("has other files"), "{refused:?}");
}

/// A package with something small in place of the program, and what is in it.
fn package(dir: &Path, mask: &str) -> std::path::PathBuf {
    fs::write(dir.join("program"), "#!/bin/sh\n").expect("writes");
    fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut pack = plain("sh");
    pack.env("SOURCE_DATE_EPOCH", "1700000000").args(["-ec", &format!("umask {mask}; exec \"$@\""), "sh"]);
    pack.arg(deploy().join("systemd/deb"));
    printed(pack.arg(dir.join("program")).arg(deploy().join("../LICENSE")).arg("1.2.3").arg(dir.join("out")));
    let mut made =
        fs::read_dir(dir.join("out")).expect("it is there").map(|it| it.expect("it is read").path());
    made.next().expect("a package")
}

#[test]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn one_program_makes_one_package() {
    let [one, two] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let made = package(one.path(), "022");
    assert_eq!(sha256(&made), sha256(&package(two.path(), "077")), "whoever makes it");
    let field = |name: &str| printed(plain("dpkg-deb").arg("--field").arg(&made).arg(name)).trim().to_owned();
    assert_eq!((field("Package"), field("Version")), ("key-broker".to_owned(), "1.2.3".to_owned()));
    let root = one.path().join("root");
    printed(plain("dpkg-deb").arg("--raw-extract").arg(&made).arg(&root));
    let conffiles = fs::read_to_string(root.join("DEBIAN/conffiles")).expect("it is there");
    assert_eq!(conffiles, "/etc/key-broker/key-broker.toml\n/etc/key-broker/policy.cedar\n");
    printed(plain("md5sum").args(["--check", "--strict", "DEBIAN/md5sums"]).current_dir(&root));
    for file in ["postinst", "prerm", "postrm"] {
        printed(plain("sh").arg("-n").arg(root.join("DEBIAN").join(file)));
        assert_eq!(fs::metadata(root.join("DEBIAN").join(file)).expect("it is there").mode() & 0o777, 0o755);
    }
    let program = unit("ExecStart").split_whitespace().next().expect("a program").to_owned();
    assert!(root.join(program.trim_start_matches('/')).exists(), "{program}");
}

/// A line of the unit.
fn unit(key: &str) -> String {
    let unit = text("systemd/key-broker.service");
    let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
    line.unwrap_or_else(|| panic!("no {key}")).to_owned()
}

#[test]
fn the_units_folders_are_those_of_the_configuration() {
    let settings: toml::Table = toml::from_str(&text("systemd/key-broker.toml")).expect("TOML");
    let path = |value: &toml::Value| value.as_str().expect("a path").to_owned();
    let folder = unit("ReadWritePaths");
    for socket in ["unix", "admin"] {
        let socket = path(&settings["listen"][socket]["path"]);
        assert_eq!(Path::new(&socket).parent(), Some(Path::new(&folder)));
    }
    let [kind, place, mode, user, group, ..] = text("systemd/key-broker.tmpfiles")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(str::split_whitespace)
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .try_into()
        .map(|fields: [String; 6]| fields)
        .expect("six fields");
    assert_eq!((kind.as_str(), place, mode.as_str(), user), ("d", folder, "0750", unit("User")));
    assert_eq!(settings["listen"]["unix"]["group"].as_str(), Some(group.as_str()));
    let journal = path(&settings["audit"]["journal_dir"]);
    assert!(journal.starts_with(&format!("/var/lib/{}/", unit("StateDirectory"))), "{journal}");
    assert!(unit("ExecStart").ends_with("--config /etc/key-broker/key-broker.toml"));
    // limits.drain_seconds is 25 unless told, and the process ends within 5 s more.
    assert!(settings.get("limits").is_none());
    assert!(unit("TimeoutStopSec").trim_end_matches('s').parse::<u64>().expect("seconds") >= 30);
    assert_eq!(unit("RestartPreventExitStatus"), "64");
}

/// The program takes the configurations of the machine's unit and of the enclaves' parent; what it wants of the machine (users, folders)
/// is not here.
#[test]
fn the_program_takes_the_configurations() {
    for folder in ["systemd", "enclave"] {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("policy.cedar"), text(&format!("{folder}/policy.cedar"))).expect("writes");
        let mut settings: toml::Table =
            toml::from_str(&text(&format!("{folder}/key-broker.toml"))).expect("TOML");
        let listen = settings["listen"].as_table_mut().expect("a table");
        // Whether this kernel has vsock is not asked here.
        listen.remove("vsock");
        for socket in ["unix", "admin"] {
            let socket_settings = listen[socket].as_table_mut().expect("a table");
            socket_settings.remove("group");
            let here = dir.path().join(socket);
            socket_settings.insert("path".to_owned(), here.to_str().expect("UTF-8").into());
        }
        let journal = dir.path().join("journal");
        settings["audit"]["journal_dir"] = journal.to_str().expect("UTF-8").into();
        let config = dir.path().join("key-broker.toml");
        fs::write(&config, settings.to_string()).expect("writes");
        let mut check = plain(env!("CARGO_BIN_EXE_key-broker"));
        let checked: Output = output(check.args(["check", "--offline", "--config"]).arg(&config));
        assert!(checked.status.success(), "{folder}: {checked:?}");
    }
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
#[cfg_attr(not(capability = "sys_admin"), ignore = "needs root, to make users")]
fn systemd_takes_unit_user_and_folder() {
    Peers::install(&["systemd"]);
    let dir = tempfile::tempdir().expect("a folder");
    let root = dir.path().join("root");
    printed(plain("dpkg-deb").arg("--raw-extract").arg(package(dir.path(), "022")).arg(&root));
    for (program, more) in [("systemd-sysusers", None), ("systemd-tmpfiles", Some("--create"))] {
        printed(plain(program).arg(format!("--root={}", root.display())).args(more).arg("key-broker.conf"));
    }
    let line = |file: &str, name: &str| -> Vec<String> {
        let all = fs::read_to_string(root.join("etc").join(file)).expect("it is made");
        let line = all
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap_or_else(|| panic!("{name}: {all}"));
        line.split(':').map(str::to_owned).collect()
    };
    let (user, clients) = (line("passwd", "key-broker"), line("group", "key-broker-clients"));
    assert_eq!((user[6].as_str(), clients[3].as_str()), ("/usr/sbin/nologin", "key-broker"));
    let folder = fs::metadata(root.join("run/key-broker")).expect("it is made");
    assert_eq!((folder.uid().to_string(), folder.gid().to_string()), (user[2].clone(), clients[2].clone()));

    for file in
        ["systemd/key-broker.service", "systemd/key-broker-watch.service", "enclave/key-broker.service"]
    {
        let file = deploy().join(file);
        let verified = output(plain("systemd-analyze").args(["verify", "--man=no"]).arg(&file));
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The program is not installed here.
        let complaints: Vec<_> = said.lines().filter(|line| line.contains("key-broker")).collect();
        assert!(complaints.iter().all(|line| line.contains("is not executable")), "{said}");
        let judged =
            printed(plain("systemd-analyze").args(["security", "--offline=true", "--json=short"]).arg(&file));
        let judged: Value = serde_json::from_str(&judged).expect("JSON");
        assert!(list(&judged).len() > 50);
        let mut limit = plain("systemd-analyze");
        printed(limit.args(["security", "--offline=true", "--threshold=20"]).arg(&file));
    }
}

/// Linters that others run find nothing that matters. The enclave's own image runs as root: it is all that the enclave has.
#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn linters_find_nothing() {
    let peers = Peers::install(&["lints"]);
    for dockerfile in ["image/Dockerfile", "enclave/Dockerfile"] {
        printed(peers.command("lints/bin/hadolint").arg(deploy().join(dockerfile)));
    }
    for folder in ["kubernetes", "image", "enclave/kubernetes.yaml"] {
        let found = trivy(&deploy().join(folder));
        assert!(found.status.success(), "{found:?}");
    }
}
