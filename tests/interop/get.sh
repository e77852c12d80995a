#!/usr/bin/env bash
# get.sh DIR   fetches the Java workers of tests/interop into DIR: the MultiLangDaemon in two versions and the KCL
# library 3.5.1 with our worker that uses it, from Maven Central. Existing jars are not fetched again; the worker is
# compiled again when its source is newer. Needs a JDK 17 and Maven. Nothing is installed outside DIR but Maven's
# own cache.
set -euo pipefail
source=$(cd "$(dirname "$0")" && pwd)/worker/Worker.java
mkdir -p "$1"
# Maven resolves a relative folder against the POM's.
dir=$(cd "$1" && pwd)

# fetch NAME ARTIFACT...   copies the artifacts (GROUP:ARTIFACT:VERSION) and their dependencies to DIR/NAME.
fetch() {
  local name=$1 artifact group id version jars=$dir/$1
  shift
  [ -d "$jars" ] && return
  rm -rf "$jars.part"
  {
    echo '<project xmlns="http://maven.apache.org/POM/4.0.0">'
    echo '  <modelVersion>4.0.0</modelVersion>'
    echo "  <groupId>interop</groupId><artifactId>$name</artifactId><version>1</version><packaging>pom</packaging>"
    echo '  <dependencies>'
    for artifact in "$@"; do
      IFS=: read -r group id version <<<"$artifact"
      echo "    <dependency><groupId>$group</groupId><artifactId>$id</artifactId><version>$version</version></dependency>"
    done
    echo '  </dependencies>'
    echo '</project>'
  } >"$dir/pom-$name.xml"
  mvn -B -q -Dstyle.color=never -f "$dir/pom-$name.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars.part"
  # Renamed only when the download is complete.
  mv "$jars.part" "$jars"
}

for version in 2.5.4 3.1.3; do
  fetch "jars-$version" "software.amazon.kinesis:amazon-kinesis-client-multilang:$version"
done

# The MultiLangDaemon 3.5.x is not on Maven Central. The library contains no logger.
core=jars-core-3.5.1
fetch "$core" software.amazon.kinesis:amazon-kinesis-client:3.5.1 org.slf4j:slf4j-simple:2.0.13
if [ ! "$dir/$core/Worker.class" -nt "$source" ]; then
  javac -nowarn -cp "$dir/$core/*" -d "$dir/$core" "$source"
fi
