//! Addresses, member specs and images: what can be wrong without any cluster.

use std::collections::HashSet;
use std::path::Path;

use atoll_testbed::MemberSpec;
use atoll_testbed::home::Home;
use atoll_testbed::image::Image;
use atoll_testbed::plan::{Block, MEMBERS_MAX, plan};
use atoll_testbed::spec::RegistryProgram;

#[test]
fn no_two_members_share_an_address_or_a_range() {
    let specs: Vec<MemberSpec> = (0..MEMBERS_MAX).map(|n| MemberSpec::named(&format!("m{n}"))).collect();
    let members = plan(Block(142), &specs).expect("they fit");
    let mut seen = HashSet::new();
    for member in &members {
        for text in [member.node().to_string(), member.pods(), member.services(), member.namespace()] {
            assert!(seen.insert(text.clone()), "{text} twice");
        }
    }
    for own in [Block(142).host(), Block(142).hub(), Block(142).lab()] {
        assert!(seen.insert(own.to_string()), "{own} twice");
    }
    assert!(!seen.contains("10.142.250.0/24"), "the hub's services");
    let more: Vec<MemberSpec> = (0..=MEMBERS_MAX).map(|n| MemberSpec::named(&format!("m{n}"))).collect();
    assert!(plan(Block(142), &more).is_err());
}

#[test]
fn a_member_that_overlaps_another_has_its_ranges_and_no_routes() {
    let specs = MemberSpec::parse_list("dev,test:overlaps=dev").expect("specs");
    let members = plan(Block(100), &specs).expect("they fit");
    assert_eq!(members[0].pods(), members[1].pods());
    assert_ne!(members[0].node(), members[1].node());
    assert_eq!((members[0].routed(), members[1].routed()), (true, false));
    let alone = MemberSpec::parse_list("test:overlaps=dev").expect("specs");
    assert!(plan(Block(100), &alone).expect_err("no dev").to_string().contains("`dev`"));
}

#[test]
fn the_story_has_a_member_without_routes_and_guarded_registries_of_two_programs() {
    let story = MemberSpec::story();
    let unrouted: Vec<&str> = story.iter().filter(|spec| !spec.routed).map(|spec| spec.name.as_str()).collect();
    assert_eq!(unrouted, ["dr"]);
    let guarded: Vec<&str> =
        story.iter().filter(|spec| spec.registry_password).map(|spec| spec.name.as_str()).collect();
    assert_eq!(guarded, ["prod-eu", "prod-us", "dr"]);
    let programs: HashSet<String> = story.iter().map(|spec| format!("{:?}", spec.registry)).collect();
    assert_eq!(programs.len(), 2);
}

#[test]
fn a_member_is_asked_for_as_the_command_line_says() {
    let asked =
        MemberSpec::parse_list("prod-us:cpu=500:memory=1024:pods=9, x:routed=false:registry=distribution3:password");
    let asked = asked.expect("specs");
    assert_eq!((asked[0].cpu_milli, asked[0].memory_mib, asked[0].pods_max), (500, 1024, 9));
    assert_eq!(
        (asked[1].routed, asked[1].registry, asked[1].registry_password),
        (false, RegistryProgram::Distribution3, true)
    );
    for bad in ["Dev", "-a", "hub", "lab", "a.b", "dev:cpu=x", "dev:colour=red", "dev,dev", "dev:registry=zot"] {
        assert!(MemberSpec::parse_list(bad).is_err(), "{bad}");
    }
}

#[test]
fn two_checkouts_have_different_homes_and_try_different_blocks_first() {
    let (one, other) = (Home::of(Path::new("/src/one")), Home::of(Path::new("/src/other")));
    assert_ne!(one.dir, other.dir);
    assert_eq!(one, Home::of(Path::new("/src/one")));
    let all: Vec<Block> = Block::candidates(one.hash).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 120, "each once");
    assert!(all.iter().all(|block| (100..220).contains(&block.0)));
    assert_ne!(all[0], Block::candidates(other.hash).next().expect("some"));
}

#[test]
fn an_image_is_the_same_whenever_it_is_made_and_another_version_another_image() {
    let files: [(&str, &[u8]); 1] = [("echo", b"program")];
    let (one, again) =
        (Image::of_files(&files, "/echo", &["VERSION=1"]), Image::of_files(&files, "/echo", &["VERSION=1"]));
    let two = Image::of_files(&files, "/echo", &["VERSION=2"]);
    assert_eq!(one.manifest.digest, again.manifest.digest);
    assert_ne!(one.manifest.digest, two.manifest.digest);
    assert_eq!(one.layer.digest, two.layer.digest, "the layer is shared");
    let archive = one.docker_archive("docker.io/shop/web:1");
    let mut archive = tar::Archive::new(archive.as_slice());
    let names: Vec<String> = archive
        .entries()
        .expect("a tar")
        .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string())
        .collect();
    assert_eq!(
        names,
        ["manifest.json".to_owned(), format!("{}.json", &one.config.digest[7..]), "layer.tar".to_owned()]
    );
}
