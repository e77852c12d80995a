#!/usr/bin/env bash
# get.sh DIR   fetches the Java daemons of tests/interop into DIR, once. Needs a JDK 17 and Maven.
set -euo pipefail
dir=$1
for version in 2.5.4 3.1.3; do
  jars=$dir/jars-$version
  [ -f "$jars/.complete" ] && continue
  mkdir -p "$jars"
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
  mvn -B -q -Dstyle.color=never -f "$dir/pom-$version.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$jars"
  touch "$jars/.complete"
done
