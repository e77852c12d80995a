#!/usr/bin/env bash
# get.sh DIR   puts the Java daemons of tests/interop under DIR, from Maven Central. What is there already is
# not fetched again. Needs a JDK 17 and Maven. Nothing is installed outside DIR but Maven's own cache.
set -euo pipefail
mkdir -p "$1"
# Maven would take a relative folder as one beside the POM.
dir=$(cd "$1" && pwd)

for version in 2.5.4 3.1.3; do
  jars=$dir/jars-$version
  [ -d "$jars" ] && continue
  rm -rf "$jars.part"
  cat >"$dir/pom-$version.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>interop</groupId><artifactId>java-daemon</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>software.amazon.kinesis</groupId>
      <artifactId>amazon-kinesis-client-multilang</artifactId>
      <version>$version</version>
    </dependency>
  </dependencies>
</project>
POM
  mvn -B -q -Dstyle.color=never -f "$dir/pom-$version.xml" dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$jars.part"
  # Under its name only when it is whole.
  mv "$jars.part" "$jars"
done
