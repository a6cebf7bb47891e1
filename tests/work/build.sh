# A build of C with several jobs, and of Rust with a build script and a macro, offline.
mkdir -p "$HOME/c" && cd "$HOME/c"
for n in 1 2 3 4 5 6; do echo "int f$n(void) { return $n; }" >f$n.c; done
echo '#include <stdio.h>
int f1(void), f2(void), f3(void), f4(void), f5(void), f6(void);
int main(void) { printf("sum %d\n", f1() + f2() + f3() + f4() + f5() + f6()); }' >main.c
printf 'all: main f1.o f2.o f3.o f4.o f5.o f6.o\n\tcc -o all $(^:main=main.o)\nmain: main.o\n\ttouch main\n' >Makefile
make -s -j4 && ./all
mkdir -p "$HOME/r/src" "$HOME/r/macros/src" && cd "$HOME/r"
cat >Cargo.toml <<'T'
[package]
name = "small"
version = "0.1.0"
edition = "2021"
[dependencies]
macros = { path = "macros" }
[workspace]
T
printf '[package]\nname = "macros"\nversion = "0.1.0"\nedition = "2021"\n[lib]\nproc-macro = true\n' >macros/Cargo.toml
echo '#[proc_macro] pub fn word(_: proc_macro::TokenStream) -> proc_macro::TokenStream { "\"made by a macro\"".parse().unwrap() }' >macros/src/lib.rs
echo 'fn main() { println!("cargo:rustc-env=BUILT=by a script"); }' >build.rs
echo 'fn main() { println!("{} {}", macros::word!(), env!("BUILT")); } #[test] fn one() {}' >src/main.rs
"$CARGO" build -q --offline && target/debug/small
"$CARGO" test -q --offline 2>&1 | grep -o '1 passed'
echo done
