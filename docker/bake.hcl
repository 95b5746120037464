# All images, for all their processors: docker buildx bake -f docker/bake.hcl
# With a registry: REGISTRY=registry.example.org/me docker buildx bake -f docker/bake.hcl --push

variable "REGISTRY" {
  default = "localhost"
}

variable "VERSION" {
  default = "0.1.0"
}

variable "REVISION" {
  default = "unknown"
}

group "default" {
  targets = ["cpu", "cuda"]
}

target "common" {
  context = "."
  args = {
    VERSION  = VERSION
    REVISION = REVISION
  }
}

target "cpu" {
  inherits   = ["common"]
  dockerfile = "Dockerfile.arm64"
  platforms  = ["linux/arm64", "linux/amd64"]
  tags       = ["${REGISTRY}/harkd:${VERSION}", "${REGISTRY}/harkd:latest"]
  attest     = ["type=sbom", "type=provenance,mode=max"]
}

# The tests, on the processor of this machine.
target "test" {
  inherits   = ["common"]
  dockerfile = "Dockerfile.arm64"
  target     = "test"
  tags       = ["harkd:test"]
  output     = ["type=docker"]
}

target "cuda" {
  inherits   = ["common"]
  name       = "cuda${cuda}"
  matrix     = { cuda = ["12", "13"] }
  dockerfile = "Dockerfile.cuda"
  platforms  = ["linux/amd64"]
  args = {
    CUDA = cuda
  }
  tags   = ["${REGISTRY}/harkd:${VERSION}-cuda${cuda}"]
  attest = ["type=sbom", "type=provenance,mode=max"]
}
