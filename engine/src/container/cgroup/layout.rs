//! Where the engine's own control groups are, from `/proc/self/mountinfo` and `/proc/self/cgroup`.
//!
//! A host has a hierarchy for each controller (v1), one for all (v2), or both at once (hybrid), each
//! mounted anywhere, in whole or in part. Nothing here touches the system.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use super::Missing;

/// What a control group limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// Which interface the files of a group have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

/// The group of a controller that the engine itself is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) version: Version,
    pub(super) directory: PathBuf,
}

/// Finds the engine's own group of a controller in the texts of `/proc/self/mountinfo` and
/// `/proc/self/cgroup`.
pub(super) fn locate(
    controller: Controller,
    mountinfo: &str,
    membership: &str,
) -> Result<Home, Missing> {
    let lines = membership.lines().filter_map(Membership::parse);
    let v1 =
        lines.clone().find(|line| line.controllers.split(',').any(|c| c == controller.as_str()));
    // A controller is on the hierarchy of v2 when none of v1 has it.
    let v2 = lines.clone().find(|line| line.controllers.is_empty());
    let (version, path) = match (v1, v2) {
        (Some(line), _) => (Version::V1, line.path),
        (None, Some(line)) => (Version::V2, line.path),
        (None, None) => return Err(Missing::NoController),
    };
    let mut mounted = false;
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        if mount.carries(version, controller) {
            mounted = true;
            if let Some(directory) = mount.directory_of(Path::new(path)) {
                return Ok(Home { version, directory });
            }
        }
    }
    Err(if mounted { Missing::Outside(path.into()) } else { Missing::NotMounted })
}

/// A line of `/proc/self/cgroup`: `4:memory:/system.slice`, or `0::/` for v2.
#[derive(Clone, Copy)]
struct Membership<'a> {
    controllers: &'a str,
    path: &'a str,
}

impl<'a> Membership<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Self { controllers: fields.next()?, path: fields.next()? })
    }
}

/// A line of `/proc/self/mountinfo`, of which proc(5) tells the fields.
struct Mount<'a> {
    /// Which part of the hierarchy is mounted.
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        // The number of fields before the dash varies.
        let (before, behind) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, point) = (unescape(before.next()?), unescape(before.next()?));
        let mut behind = behind.split(' ');
        let (kind, options) = (behind.next()?, behind.nth(1)?);
        Some(Self { root, point, kind, options })
    }

    fn carries(&self, version: Version, controller: Controller) -> bool {
        match version {
            Version::V1 => {
                let mut options = self.options.split(',');
                self.kind == "cgroup" && options.any(|option| option == controller.as_str())
            }
            Version::V2 => self.kind == "cgroup2",
        }
    }

    /// Where a group is under the mount point, if it is there.
    fn directory_of(&self, group: &Path) -> Option<PathBuf> {
        let relative = group.strip_prefix(&self.root).ok()?;
        // A group outside of this process's cgroup namespace is told as `/../..`.
        let is_inside = relative.components().all(|part| matches!(part, Component::Normal(_)));
        // Joining nothing would leave a slash at the end.
        is_inside.then(|| self.point.components().chain(relative.components()).collect())
    }
}

/// Spaces and the like are written as a backslash and three octal digits.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut result = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, behind)) = rest.split_first() {
        let code = if first == b'\\' { behind.get(..3).and_then(octal) } else { None };
        result.push(code.unwrap_or(first));
        rest = if code.is_some() { &behind[3..] } else { behind };
    }
    PathBuf::from(OsString::from_vec(result))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

    fn home(version: Version, directory: &str) -> Result<Home, Missing> {
        Ok(Home { version, directory: directory.into() })
    }

    /// Docker's way, with two controllers on one hierarchy and a part of each mounted.
    const V1_MOUNTS: &str = "\
1130 1129 0:95 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1142 1140 0:28 /docker/6a1f /sys/fs/cgroup/systemd ro,nosuid master:9 - cgroup cgroup rw,xattr,name=systemd
1143 1140 0:31 /docker/6a1f /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:15 - cgroup cgroup rw,cpu,cpuacct
1144 1140 0:36 /docker/6a1f /sys/fs/cgroup/memory ro,nosuid master:20 - cgroup cgroup rw,memory
";
    const V1_GROUPS: &str = "\
12:pids:/docker/6a1f
4:cpu,cpuacct:/docker/6a1f
3:memory:/docker/6a1f/below
1:name=systemd:/docker/6a1f
";

    #[test]
    fn on_a_host_of_v1_every_controller_has_a_mount_of_its_own() {
        let cpu = locate(Controller::Cpu, V1_MOUNTS, V1_GROUPS);
        assert_eq!(cpu, home(Version::V1, "/sys/fs/cgroup/cpu,cpuacct"));
        let memory = locate(Controller::Memory, V1_MOUNTS, V1_GROUPS);
        assert_eq!(memory, home(Version::V1, "/sys/fs/cgroup/memory/below"));
        assert_eq!(locate(Controller::Pids, V1_MOUNTS, V1_GROUPS), Err(Missing::NotMounted));
    }

    const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime shared:7 master:2 - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn on_a_hybrid_host_what_v1_has_is_not_on_v2() {
        let groups = "8:pids:/\n4:memory:/process_api/3a95\n2:cpuacct:/\n1:cpu:/\n0::/\n";
        let found = ALL.map(|controller| locate(controller, HYBRID_MOUNTS, groups));
        let directories = ["cpu", "memory/process_api/3a95", "pids"];
        let expected = directories.map(|name| home(Version::V1, &format!("/sys/fs/cgroup/{name}")));
        assert_eq!(found, expected);

        let without_pids = groups.replace("8:pids:/\n", "");
        let pids = locate(Controller::Pids, HYBRID_MOUNTS, &without_pids);
        assert_eq!(pids, home(Version::V2, "/sys/fs/cgroup/unified"));
    }

    const V2_MOUNTS: &str = "\
23 28 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
35 23 0:30 / /sys/fs/cgroup rw,nosuid,nodev shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
";

    #[test]
    fn on_a_host_of_v2_all_controllers_share_the_engines_group() {
        for (group, directory) in [
            ("0::/\n", "/sys/fs/cgroup"),
            (
                "0::/system.slice/nightcore.service\n",
                "/sys/fs/cgroup/system.slice/nightcore.service",
            ),
            // The path may hold anything.
            ("0::/a:b/c d\n", "/sys/fs/cgroup/a:b/c d"),
        ] {
            for controller in ALL {
                assert_eq!(locate(controller, V2_MOUNTS, group), home(Version::V2, directory));
            }
        }
    }

    #[test]
    fn a_group_that_no_mount_shows_is_not_found_elsewhere() {
        let outside = |path: &str| Err(Missing::Outside(path.into()));
        let partly = V2_MOUNTS.replace(" 0:30 / ", " 0:30 /kubepods/pod1 ");
        for (mounts, group) in
            [(partly.as_str(), "/kubepods/pod12"), (V2_MOUNTS, "/../pod2"), (V2_MOUNTS, "/..")]
        {
            let found = locate(Controller::Memory, mounts, &format!("0::{group}\n"));
            assert_eq!(found, outside(group));
        }
        let inside = locate(Controller::Memory, &partly, "0::/kubepods/pod1/x\n");
        assert_eq!(inside, home(Version::V2, "/sys/fs/cgroup/x"));
    }

    #[test]
    fn a_part_that_is_mounted_too_does_not_hide_the_whole() {
        let part = "9 1 0:30 /other /mnt rw - cgroup2 cgroup2 rw\n";
        let found = locate(Controller::Cpu, &format!("{part}{V2_MOUNTS}"), "0::/mine\n");
        assert_eq!(found, home(Version::V2, "/sys/fs/cgroup/mine"));
    }

    #[test]
    fn without_control_groups_there_is_no_controller() {
        assert_eq!(locate(Controller::Cpu, V2_MOUNTS, ""), Err(Missing::NoController));
        assert_eq!(locate(Controller::Cpu, "", "0::/\n"), Err(Missing::NotMounted));
        // Whatever else the kernel may write there some day.
        let odd = "x\n1\n1:cpu\n - \n1 2 3 4 5 - cgroup2\n";
        assert_eq!(locate(Controller::Cpu, odd, odd), Err(Missing::NoController));
    }

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape(r"/a\040b\134c"), PathBuf::from(r"/a b\c"));
        assert_eq!(unescape(r"/a\04"), PathBuf::from(r"/a\04"));
        assert_eq!(unescape(r"/a\999\"), PathBuf::from(r"/a\999\"));
    }
}
