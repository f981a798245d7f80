"""`python -m anglekit_cli`, which `accelerate launch -m` needs."""

from anglekit_cli.main import main

if __name__ == "__main__":
    main()
