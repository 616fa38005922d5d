# sh objcache.sh FOLDER COMPILER ARGUMENT...
#
# Runs a compiler. The objects of Verilator's run-time library are kept in FOLDER: they are the same for all simulators
# that are built with the same arguments, and compiling them takes half of the time of a small one's build.

folder=$1
shift
for source; do :; done
case $source in
    "$VERILATOR_ROOT"/include/*.cpp) command -v sha256sum >/dev/null || exec "$@" ;;
    *) exec "$@" ;;
esac

object= previous=
for argument; do
    [ "$previous" = -o ] && object=$argument
    previous=$argument
done
[ -n "$object" ] || exec "$@"

key=$(printf '%s\n' "$@" | sha256sum | cut -c 1-32)
kept=$folder/$key.o
if [ -f "$kept" ]; then
    exec cp "$kept" "$object"
fi
"$@" || exit
mkdir -p "$folder"
cp "$object" "$kept.$$" && mv "$kept.$$" "$kept"
