//! git, on the project's own repository.

use e2e::binary::workspace;
use e2e::on_fs;
use e2e::run::{ok, script};

#[test]
fn git_clones_this_repository_and_finds_it_whole() {
    on_fs("size=512M", |fs| {
        let mut git = script(
            fs.dir(),
            r#"export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null
               git -c safe.directory='*' clone -q --no-local "$REPO" clone
               cd clone
               git fsck --full --strict
               git -c gc.auto=0 repack -adq
               git fsck --full
               test -z "$(git status --porcelain)"
               git -c user.name=x -c user.email=x@y commit -q --allow-empty -m test
               git checkout -q -b other && git rm -rq . && git reset -q --hard && git clean -fdxq
               test -z "$(git status --porcelain)""#,
        );
        ok(git.env("REPO", workspace()));
    });
}

#[test]
fn git_worktrees_and_gc_work() {
    on_fs("size=256M", |fs| {
        ok(&mut script(
            fs.dir(),
            r#"export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=x GIT_AUTHOR_EMAIL=x@y \
                      GIT_COMMITTER_NAME=x GIT_COMMITTER_EMAIL=x@y
               git init -q r && cd r
               for i in $(seq 1 20); do seq $i $((i * 100)) > f$i; git add -A; git commit -q -m $i; done
               git gc -q --aggressive --prune=now
               git worktree add -q ../w HEAD~10
               test $(ls ../w | wc -l) = 10
               git fsck --full --strict"#,
        ));
    });
}
