"""An image made from a confidential image: started, it does its own work, with files that the first one left open to read."""

TEXT = "/usr/share/base-files/motd"


def test_an_image_made_from_a_confidential_one_starts_and_reads_what_it_protects_itself(native, lab, workshop, containers):
    def make():
        image = workshop.engine.name("chained")
        workshop.engine.made.remove(image)
        built = workshop.sconify(
            f"--from=docker:{lab}",
            f"--to=docker:{image}",
            "--base=scratch",
            "--binary=/usr/bin/tac",
            f"--command=tac {TEXT}",
            "--dir=/usr/share/base-files",
            "--allow-debug-mode",
        )
        assert built.status == 0, built.stderr
        return image

    image = workshop.once("chained", make)
    plain = containers.read(native.image, TEXT)
    ended = containers.run(image)
    assert (ended.status, ended.stdout, ended.stderr) == (0, "".join(reversed(plain.decode().splitlines(keepends=True))), "")
    stored = containers.read(image, TEXT)
    assert plain.strip()
    assert plain not in stored
    first = containers.run(lab, "print('STARTED', open('/app/secret.txt').read())")
    assert (first.status, native.markers[4] in first.stdout) == (0, True), first
