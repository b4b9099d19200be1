//! The packages under client/ as somebody has them who installs them: built as their registry takes them, in an empty project.
#![allow(dead_code, reason = "every test file uses another part of this one")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::peers::{Peers, output, plain, printed, root};

/// A directory with these folders of the repository, at the same places: a build writes beside its sources.
pub(crate) fn copied(folders: &[&str]) -> TempDir {
    let work = tempfile::tempdir().expect("a directory");
    for folder in folders {
        let to = work.path().join(folder);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        let copied = output(Command::new("cp").arg("-r").arg(root().join(folder)).arg(&to));
        assert!(copied.status.success(), "{folder} cannot be copied");
    }
    work
}

/// Of a copy of client/python: an empty project that has its wheel.
pub(crate) struct Python {
    project: PathBuf,
}

impl Python {
    pub(crate) fn install(peers: &Peers, work: &Path) -> Self {
        let package = work.join("client/python");
        let tool = || {
            let mut python = peers.command("client-python/bin/python");
            python.current_dir(&package);
            python
        };
        // The wheel is built from the source distribution.
        printed(tool().args(["-m", "build", "--no-isolation"]));
        let version = version();
        assert!(package.join(format!("dist/key_broker-{version}.tar.gz")).exists());

        let project = work.join("python");
        fs::create_dir(&project).expect("a directory");
        printed(tool().args(["-m", "venv"]).arg(project.join("venv")));
        let mut pip = plain(project.join("venv/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--no-index", "--find-links"]);
        pip.arg(peers.path("client-python/wheels"));
        printed(pip.arg(package.join(format!("dist/key_broker-{version}-py3-none-any.whl"))));
        Self { project }
    }

    pub(crate) fn project(&self) -> &Path {
        &self.project
    }

    /// Its interpreter, in the project.
    pub(crate) fn command(&self) -> Command {
        let mut python = plain(self.project.join("venv/bin/python"));
        python.current_dir(&self.project);
        python
    }
}

/// Of a copy of client/node: an empty project that has what `npm pack` makes.
pub(crate) struct Node {
    project: PathBuf,
}

impl Node {
    pub(crate) fn install(peers: &Peers, work: &Path) -> Self {
        let package = work.join("client/node");
        symlink(peers.path("client-node/node_modules"), package.join("node_modules")).expect("a link");
        // With its script `prepack`, which builds it.
        printed(npm(peers, &package).arg("pack"));
        let tarball = package.join(format!("key-broker-client-{}.tgz", version()));

        let project = work.join("node");
        fs::create_dir(&project).expect("a directory");
        fs::write(project.join("package.json"), r#"{ "private": true, "type": "module" }"#).expect("writes");
        printed(npm(peers, &project).args(["install", "--ignore-scripts"]).arg(&tarball));
        Self { project }
    }

    pub(crate) fn project(&self) -> &Path {
        &self.project
    }

    /// Node, in the project.
    pub(crate) fn command(&self) -> Command {
        let mut node = plain("node");
        node.current_dir(&self.project);
        node
    }
}

/// npm in a folder, with what is installed already.
pub(crate) fn npm(peers: &Peers, dir: &Path) -> Command {
    let mut npm = plain("npm");
    npm.current_dir(dir).args(["--cache"]).arg(peers.path("client-node/cache"));
    npm.args(["--prefer-offline", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error"]);
    npm
}

/// That of the workspace.
pub(crate) fn version() -> String {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    let (_, package) = manifest.split_once("[workspace.package]\nversion = \"").expect("a version");
    package.split('"').next().unwrap_or_default().to_owned()
}
